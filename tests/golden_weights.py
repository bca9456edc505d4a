"""The weights of the authors' checkpoints, brought to the layouts and names of our variables.

Their finetuned checkpoints are in PyTorch's layouts. Their pretrained ones come from sparse convolutions: kernels
are `(offsets, ...)` with the row of the offset running fastest, and layers have one more level in their names.
"""

import pathlib
import re

import numpy as np

DATA = pathlib.Path(__file__).parent / "data"


def read(name):
    """Returns `{key: array}` of a file of the data folder."""
    with np.load(DATA / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def our_name(key):
    """The name of the variable that takes the authors' `key`."""
    key = key.removeprefix("encoder.").replace(".ln.", ".").replace(".linear.", ".")
    key = re.sub(r"^downsample_layers\.0\.0\.", "stem.conv.", key)
    key = re.sub(r"^downsample_layers\.0\.1\.", "stem.norm.", key)
    key = re.sub(r"^downsample_layers\.(\d)\.0\.", r"stage_\1.downsampling.norm.", key)
    key = re.sub(r"^downsample_layers\.(\d)\.1\.", r"stage_\1.downsampling.conv.", key)
    key = re.sub(r"^stages\.(\d)\.(\d)\.", r"stage_\1.block_\2.", key)
    key = re.sub(r"^decoder\.(\d)\.", r"decoder.block_\1.", key)
    key = re.sub(r"^proj\.", "decoder.embedding.", key)
    key = re.sub(r"^pred\.", "decoder.prediction.", key)
    key = re.sub(r"^mask_token$", "decoder.mask_token", key)
    key = re.sub(r"^norm\.", "head_norm.", key)
    key = key.replace("dwconv", "depthwise_conv").replace("pwconv1", "expansion").replace("pwconv2", "projection")
    if "norm." in key:
        key = key.replace(".weight", ".gamma").replace(".bias", ".beta")
    return key.replace(".weight", ".kernel").replace(".", "/")


def our_layout(key, value, shape):
    """The authors' `value` in our `shape`.

    Args:
        key: the authors' name.
        value: the array.
        shape: of the variable that takes it.
    """
    if key.endswith(".kernel"):  # sparse: (columns * rows, ...) with the row fastest
        side = shape[0]
        return value.reshape(side, side, *value.shape[1:]).swapaxes(0, 1).reshape(shape)
    if ".dwconv.weight" in key:  # (C, 1, rows, columns)
        return value.transpose(2, 3, 0, 1)
    if value.ndim == 4 and key.endswith(".weight"):  # (out, in, rows, columns)
        return value.transpose(2, 3, 1, 0).reshape(shape)
    if value.ndim == 2 and key.endswith(".weight"):
        return value.T
    return value.reshape(shape)


def assign(checkpoint, variables):
    """Gives `variables`, by our name, the weights of a checkpoint: every one and no more.

    Args:
        checkpoint: name of a file of the data folder.
        variables: `{our name: variable}`.
    """
    values = {our_name(key): (key, value) for key, value in read(checkpoint).items()}
    assert variables.keys() == values.keys()
    for name, variable in variables.items():
        variable.assign(our_layout(*values[name], tuple(variable.shape)))
