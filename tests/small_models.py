"""Models that are small enough to check value by value, and random weights for any layer."""

import contextlib

import keras
import numpy as np

from convnext import ConvNeXtV2
from fcmae import FCMAE


@contextlib.contextmanager
def no_values():
    """A scope in which models have variables without values: those of the largest would take 2.6 GB."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session()  # or Keras would make up for the values later on


def variables_of(layer):
    """Returns `{name: variable}` of the weights of a layer that stands alone or in a model, names relative to it."""
    return {
        variable.path.split(f"{layer.name}/", 1)[1]: variable
        for variable in layer.weights
        if "seed_generator" not in variable.path
    }


def parts_of(autoencoder):
    """Returns `{name: variable}` of an `FCMAE`: names of its backbone, and those of its decoder below `decoder/`."""
    decoder = {f"decoder/{name}": variable for name, variable in variables_of(autoencoder.decoder).items()}
    return {**variables_of(autoencoder.backbone), **decoder}


def randomize(variables, seed=0, scale=0.4):
    """Gives every variable a random value, so that no scale is one and no offset zero.

    Args:
        variables: `{name: variable}`.
        seed: of the values.
        scale: their standard deviation.

    Returns:
        `{name: array}` float64 of the new values.
    """
    rng = np.random.default_rng(seed)
    values = {}
    for name, variable in variables.items():
        value = rng.normal(size=variable.shape) * scale
        if name.endswith("norm/gamma"):
            value += 1.0
        variable.assign(value.astype("float32"))
        values[name] = value.astype("float32").astype("float64")
    return values


def small_backbone(
    input_shape=(32, 48, 3), depths=(1, 2, 1), dims=(4, 6, 8), stem_stride=2, model=ConvNeXtV2, **arguments
):
    """A `ConvNeXtV2`, or another `model`, of three stages, without head: patches of 8 pixels."""
    arguments = {"include_top": False, **arguments}
    return model(depths, dims, input_shape=input_shape, stem_stride=stem_stride, **arguments)


def small_fcmae(input_shape=(32, 48, 3), decoder_dim=8, dtype=None, **arguments):
    """An `FCMAE` over `small_backbone`: 24 patches."""
    backbone = small_backbone(input_shape, dtype=dtype)
    return FCMAE(backbone, decoder_dim=decoder_dim, dtype=dtype, **arguments)


def random_images(*shape, seed=0):
    """Images of a normal distribution, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def random_visible(batch, patches, keep, seed=0):
    """`(batch, patches)` float32, `keep` ones a row."""
    ranks = np.random.default_rng(seed).random((batch, patches)).argsort(axis=1)
    return (ranks < keep).astype("float32")
