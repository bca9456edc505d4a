"""What one backend computes: run in a process of its own, `python -m tests.backend_outputs FOLDER`.

FOLDER holds the weights; the outputs go to `outputs_BACKEND.npz` in it.
"""

import pathlib
import sys

import keras
import numpy as np

from convnext import ConvNeXtV1, ConvNeXtV2, load_pretrained
from convnext.layers import gelu
from convnext.segmentation import DECODERS, Segmenter
from fcmae import FCMAE
from tests.small_models import parts_of, random_images, random_visible, randomize, small_backbone

CLASSES = 5
GELU_INPUTS = np.linspace(-8.0, 8.0, 257)  # bfloat16 has them all
VERSIONS = {"v1": ConvNeXtV1, "v2": ConvNeXtV2}


def make_classifier(version, **arguments):
    return small_backbone(model=VERSIONS[version], include_top=True, num_classes=CLASSES, **arguments)


def make_autoencoder(execution="sparse"):
    return FCMAE(small_backbone(), decoder_dim=8, execution=execution)


def make_segmenter(decoder):
    return Segmenter(small_backbone(name="encoder"), CLASSES, decoder, decoder_dim=4)


def outputs(folder):
    """Returns `{name: array}`: logits, feature maps, predictions and losses for the weights in a folder."""
    images = random_images(2, 32, 48, 3)
    found = {}
    for version in VERSIONS:
        model = make_classifier(version)
        load_pretrained(model, folder / f"{version}.weights.h5")
        inputs = keras.Input(images.shape[1:])
        model_of_all = keras.Model(inputs, [model(inputs), *model.extract_features(inputs)])
        logits, *feature_maps = model_of_all.predict_on_batch(images)
        found[f"{version}/logits"] = logits
        found |= {f"{version}/f{stage}": feature_map for stage, feature_map in enumerate(feature_maps)}
    for decoder in DECODERS:
        model = make_segmenter(decoder)
        model.load_weights(folder / f"{decoder}.weights.h5")
        found[f"{decoder}/logits"] = compiled(model)(images[:, :27, :41])
    for execution in ("sparse", "dense"):
        model = make_autoencoder(execution)
        load_pretrained(model, folder / "fcmae.weights.h5")
        visible = random_visible(2, model.num_patches, model.num_visible)
        both = compiled(lambda *batch, model=model: (model.predict_patches(*batch), model.image_losses(*batch)))
        found[f"{execution}/prediction"], found[f"{execution}/losses"] = both(images, visible)
    return {name: keras.ops.convert_to_numpy(value) for name, value in found.items()}


def compiled(function):
    """Returns the function compiled as a whole on JAX, where otherwise each operation would be compiled for itself."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(lambda *arguments: function(*arguments))


def fit():
    """Trains a classifier and an autoencoder, and returns their losses before and after."""
    images, labels = training_data()
    model = make_classifier("v2", drop_path_rate=0.1)
    model.compile(keras.optimizers.AdamW(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = model.evaluate(images, labels, batch_size=4, verbose=0)
    model.fit(images, labels, batch_size=4, epochs=6, verbose=0)
    losses = np.array([before, model.evaluate(images, labels, batch_size=4, verbose=0)])
    model = make_autoencoder()
    model.compile(keras.optimizers.AdamW(1e-2))
    of_epochs = model.fit(images, batch_size=4, epochs=6, verbose=0).history["loss"]
    return {"fit/v2": losses, "fit/fcmae": np.array(of_epochs)[[0, -1]]}


def training_data():
    """16 images and their labels, which shift the colours."""
    labels = np.arange(16) % CLASSES
    images = random_images(16, 32, 48, 3) + labels[:, None, None, None].astype("float32") * [1.0, -1.0, 0.0]
    return images.astype("float32"), labels


def fit_on_one_and_all_devices():
    """Trains an autoencoder on one device of JAX, and again on all: `{"one/...": array, "all/...": array}`."""
    found = {f"one/{name}": value for name, value in fit_autoencoder().items()}
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    found |= {f"all/{name}": value for name, value in fit_autoencoder().items()}
    return found | {f"images a device/{execution}": images_a_device(execution) for execution in ("sparse", "dense")}


def fit_autoencoder():
    """Trains an autoencoder by plain gradient descent on the devices of the distribution that is set.

    Returns:
        `{name: array}`: the losses of the epochs, the number of devices that the weights lie on, and for each weight
        its values before and after, `(2, ...)`.
    """
    keras.utils.set_random_seed(1)
    model = make_autoencoder()
    variables = parts_of(model)
    before = randomize(variables, scale=0.2)
    model.compile(keras.optimizers.SGD(0.1))
    losses = model.fit(training_data()[0], batch_size=4, epochs=2, verbose=0).history["loss"]
    found = {name: np.stack([value, variables[name]]) for name, value in before.items()}
    return {"losses": np.array(losses), "devices": np.array(len(model.weights[0].value.devices())), **found}


def images_a_device(execution):
    """Returns on how many of 4 images each device works in a compiled step."""
    model = make_autoencoder(execution)
    batch = random_images(4, 32, 48, 3), random_visible(4, model.num_patches, model.num_visible)
    distribution = keras.distribution.distribution()
    batch = [keras.distribution.distribute_tensor(part, distribution.get_data_layout(part.shape)) for part in batch]
    losses = compiled(model.image_losses)(*batch)
    return np.array([len(shard.data) for shard in losses.addressable_shards])


def gelu_and_its_gradient():
    """GELU of JAX at `GELU_INPUTS`, and its gradient, in both precisions."""
    import jax

    found = {}
    for dtype in ("float32", "bfloat16"):
        inputs = keras.ops.cast(GELU_INPUTS, dtype)
        found[f"gelu/{dtype}"] = gelu(inputs)
        found[f"gelu gradient/{dtype}"] = jax.grad(lambda x: keras.ops.sum(gelu(x, training=True)))(inputs)
    return {name: np.asarray(value, "float32") for name, value in found.items()}


def write_weights(folder):
    """Writes random weights for `outputs`."""
    for version in VERSIONS:
        model = make_classifier(version)
        randomize({variable.path: variable for variable in model.weights})
        model.save_weights(folder / f"{version}.weights.h5")
    for decoder in DECODERS:
        model = make_segmenter(decoder)
        randomize({variable.path: variable for variable in model.weights})
        model.save_weights(folder / f"{decoder}.weights.h5")
    model = make_autoencoder()
    randomize({variable.path: variable for variable in (*model.backbone.weights, *model.decoder.weights)})
    model.save_weights(folder / "fcmae.weights.h5")


def draw_weights_with_numpy():
    """Makes initial weights in another way than JAX, which would compile a generator for each shape."""
    generator = np.random.default_rng(0)

    def draw(initializer, shape, dtype=None):
        values = generator.normal(initializer.mean, initializer.stddev, shape)
        return keras.ops.convert_to_tensor(values, dtype or "float32")

    keras.initializers.RandomNormal.__call__ = draw


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    draw_weights_with_numpy()
    directory = pathlib.Path(sys.argv[1])
    found = outputs(directory)
    if keras.backend.backend() == "jax":
        import jax

        found |= gelu_and_its_gradient()
        jax.config.update("jax_disable_most_optimizations", True)  # they are most of the time of XLA
        found |= fit() | fit_on_one_and_all_devices()
    else:
        found |= fit()
    np.savez(directory / f"outputs_{keras.backend.backend()}.npz", **found)
