"""What one backend computes: run in a process of its own, `python -m tests.backend_outputs FOLDER`.

FOLDER holds the weights; the outputs go to `outputs_BACKEND.npz` in it.
"""

import pathlib
import sys

import keras
import numpy as np

from convnext import ConvNeXtV1, ConvNeXtV2, load_pretrained
from fcmae import FCMAE
from tests.small_models import random_images, random_visible, randomize, small_backbone

CLASSES = 5
VERSIONS = {"v1": ConvNeXtV1, "v2": ConvNeXtV2}


def make_classifier(version, **arguments):
    return small_backbone(model=VERSIONS[version], include_top=True, num_classes=CLASSES, **arguments)


def make_autoencoder(execution="sparse"):
    return FCMAE(small_backbone(), decoder_dim=8, execution=execution)


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
    for execution in ("sparse", "dense"):
        model = make_autoencoder(execution)
        load_pretrained(model, folder / "fcmae.weights.h5")
        visible = random_visible(2, model.num_patches, model.num_visible)
        found[f"{execution}/prediction"] = model.predict_patches(images, visible)
        found[f"{execution}/losses"] = model.image_losses(images, visible)
    return {name: keras.ops.convert_to_numpy(value) for name, value in found.items()}


def fit():
    """Trains a classifier and an autoencoder for an epoch, and returns their losses before and after."""
    labels = np.arange(16) % CLASSES
    images = random_images(16, 32, 48, 3) + labels[:, None, None, None].astype("float32") * [1.0, -1.0, 0.0]
    images = images.astype("float32")
    model = make_classifier("v2", drop_path_rate=0.1)
    model.compile(keras.optimizers.AdamW(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = model.evaluate(images, labels, batch_size=4, verbose=0)
    model.fit(images, labels, batch_size=4, epochs=6, verbose=0)
    losses = {"fit/v2": np.array([before, model.evaluate(images, labels, batch_size=4, verbose=0)])}
    model = make_autoencoder()
    model.compile(keras.optimizers.AdamW(1e-2))
    history = model.fit(images, batch_size=4, epochs=6, verbose=0).history["loss"]
    losses["fit/fcmae"] = np.array([history[0], history[-1]])
    return losses


def fit_on_devices():
    """Trains an autoencoder on one device and then on all of JAX, whose batches `fit` divides among them.

    Returns:
        `{"one/...", "all/..."}`: the losses of the epochs, the final weights, and the number of devices they lie on.
    """
    found = {}
    images = random_images(16, 32, 48, 3)
    for name, distribution in (("one", None), ("all", keras.distribution.DataParallel())):
        keras.distribution.set_distribution(distribution)
        keras.utils.set_random_seed(1)
        model = make_autoencoder()
        model.compile(keras.optimizers.AdamW(1e-2))
        found[f"{name}/losses"] = np.array(model.fit(images, batch_size=4, epochs=3, verbose=0).history["loss"])
        found |= {f"{name}/weight {i}": np.asarray(weight.value) for i, weight in enumerate(model.weights)}
        found[f"{name}/devices"] = np.array(len(model.weights[0].value.devices()))
    keras.distribution.set_distribution(None)
    return found


def write_weights(folder):
    """Writes random weights for `outputs`."""
    for version in VERSIONS:
        model = make_classifier(version)
        randomize({variable.path: variable for variable in model.weights})
        model.save_weights(folder / f"{version}.weights.h5")
    model = make_autoencoder()
    randomize({variable.path: variable for variable in (*model.backbone.weights, *model.decoder.weights)})
    model.save_weights(folder / "fcmae.weights.h5")


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    directory = pathlib.Path(sys.argv[1])
    backend = keras.backend.backend()
    of_devices = fit_on_devices() if backend == "jax" else {}
    np.savez(directory / f"outputs_{backend}.npz", **outputs(directory), **fit(), **of_devices)
