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
    """Trains a classifier and an autoencoder, and returns their losses before and after.

    On JAX it trains the autoencoder once more, on all devices, and returns what came of both: `one/...`, `all/...`.
    """
    labels = np.arange(16) % CLASSES
    images = random_images(16, 32, 48, 3) + labels[:, None, None, None].astype("float32") * [1.0, -1.0, 0.0]
    images = images.astype("float32")
    model = make_classifier("v2", drop_path_rate=0.1)
    model.compile(keras.optimizers.AdamW(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = model.evaluate(images, labels, batch_size=4, verbose=0)
    model.fit(images, labels, batch_size=4, epochs=6, verbose=0)
    losses = {"fit/v2": np.array([before, model.evaluate(images, labels, batch_size=4, verbose=0)])}
    one = fit_autoencoder(images)
    losses["fit/fcmae"] = one["losses"][[0, -1]]
    if keras.backend.backend() != "jax":
        return losses
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    all_devices = fit_autoencoder(images)
    found = {f"one/{name}": value for name, value in one.items()}
    return losses | found | {f"all/{name}": value for name, value in all_devices.items()}


def fit_autoencoder(images):
    """Trains an autoencoder on the devices of the distribution that is set.

    Returns:
        `{name: array}`: the losses of the epochs, the final weights, and the number of devices that these lie on.
    """
    keras.utils.set_random_seed(1)
    model = make_autoencoder()
    model.compile(keras.optimizers.AdamW(1e-2))
    losses = model.fit(images, batch_size=4, epochs=6, verbose=0).history["loss"]
    weights = {f"weight {i}": keras.ops.convert_to_numpy(weight.value) for i, weight in enumerate(model.weights)}
    on_jax = keras.backend.backend() == "jax"
    count = len(model.weights[0].value.devices()) if on_jax else 1
    return {"losses": np.array(losses), "devices": np.array(count), **weights}


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
    np.savez(directory / f"outputs_{keras.backend.backend()}.npz", **outputs(directory), **fit())
