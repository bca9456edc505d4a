"""A model made for given weights: the sizes are read from their shapes."""

from convnext.convnext_v1 import ConvNeXtV1
from convnext.convnext_v2 import ConvNeXtV2
from convnext.weights.architecture import Architecture
from convnext.weights.loader import assign_weights, find_weights
from convnext.weights.reading import read_weights

VERSIONS = {1: ConvNeXtV1, 2: ConvNeXtV2}


def create_from_weights(source, key=None, pretrained_stem="load", **overrides):
    """Creates the ConvNeXt that some weights belong to, whatever its version and sizes, and loads them.

    Example:

        >>> model = create_from_weights("convnextv2_atto.safetensors")          # with its head
        >>> encoder = create_from_weights("runs/own", include_top=False)

    Args:
        source: a run's workdir or a file, as `load_pretrained` takes it.
        key: entry of a PyTorch checkpoint that holds the weights (see `convnext.weights.read_weights`).
        pretrained_stem: as `load_pretrained` takes it, for an `input_shape` with another number of channels.
        **overrides: arguments of the model, such as `num_classes`, `include_top`, `input_shape` or `drop_path_rate`.

    Returns:
        A `ConvNeXtV1` or `ConvNeXtV2`; with a head where the source has one or `num_classes` is given. A decoder in
        the source is left out.

    Raises:
        PretrainedError: if the source cannot be read, or is no ConvNeXt.
    """
    path = find_weights(source)
    weights = read_weights(path, key)
    model = make_model(Architecture.of(weights, path), **overrides)
    assign_weights(model, weights, path, pretrained_stem).log()
    return model


def make_model(architecture, **overrides):
    """Returns a new model of an `Architecture`; `overrides` are arguments of it."""
    arguments = {
        "depths": architecture.depths,
        "dims": architecture.dims,
        "input_shape": (None, None, architecture.channels),
        "include_top": architecture.num_classes > 0 or "num_classes" in overrides,
        "num_classes": architecture.num_classes or 1000,
        "stem_stride": architecture.stem_stride,
        "kernel_size": architecture.kernel_size,
    }
    return VERSIONS[architecture.version](**{**arguments, **overrides})
