"""Makes ConvNeXts of a published size, or of the sizes that some weights have, with or without pretrained weights."""

import dataclasses
import os
from typing import Any

from convnext.backbone import ConvNeXt
from convnext.convnext_v1 import ConvNeXtV1
from convnext.convnext_v2 import ConvNeXtV2
from convnext.weights.architecture import Architecture
from convnext.weights.formats import read_checkpoint
from convnext.weights.loader import assign_weights, find_weights, load_pretrained

VERSIONS: dict[int, type[ConvNeXt]] = {1: ConvNeXtV1, 2: ConvNeXtV2}


def create_from_weights(
    source: str | os.PathLike, key: str | None = None, pretrained_stem: str = "load", **overrides: Any
) -> ConvNeXt:
    """Creates the ConvNeXt that some weights belong to, whatever its version and sizes, and loads them.

    Example:

        >>> model = create_from_weights("convnextv2_atto.safetensors")          # with its head
        >>> encoder = create_from_weights("runs/own", include_top=False)

    Args:
        source: a run's workdir or a file, as `load_pretrained` takes it.
        key: what to take of a file that holds several ConvNeXts (see `convnext.weights.read_checkpoint`).
        pretrained_stem: as `load_pretrained` takes it, for an `input_shape` with another number of channels.
        **overrides: arguments of the model, such as `num_classes`, `include_top`, `input_shape` or `drop_path_rate`.

    Returns:
        A `ConvNeXtV1` or `ConvNeXtV2`; with a head where the source has one or `num_classes` is given. A decoder in
        the source is left out.

    Raises:
        PretrainedError: if the source cannot be read, or is not a ConvNeXt.
    """
    path = find_weights(source)
    checkpoint = read_checkpoint(path, key)
    model = make_model(Architecture.of(checkpoint.weights, path, checkpoint.options), **overrides)
    assign_weights(model, checkpoint, path, pretrained_stem).log()
    return model


def make_model(architecture: Architecture, **overrides: Any) -> ConvNeXt:
    """Returns a new model of an `Architecture`; `overrides` are arguments of it."""
    arguments = dataclasses.asdict(architecture)
    version, channels, num_classes = (arguments.pop(name) for name in ("version", "channels", "num_classes"))
    head = {"include_top": num_classes > 0 or "num_classes" in overrides, "num_classes": num_classes or 1000}
    return VERSIONS[version](**{**arguments, **head, "input_shape": (None, None, channels), **overrides})


def create_convnext_v2(
    variant: str,
    num_classes: int = 1000,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    include_top: bool = True,
    pretrained: str | os.PathLike | None = None,
    drop_path_rate: float = 0.0,
    pretrained_stem: str = "load",
    **overrides: Any,
) -> ConvNeXtV2:
    """Creates a ConvNeXt V2, with pretrained weights where asked for.

    Args:
        variant: a name in `ConvNeXtV2.MODEL_VARIANTS`.
        num_classes: number of logits.
        input_shape: `(H, W, channels)`; H and W may be None.
        include_top: whether the model ends in the classification head.
        pretrained: a run's workdir, or a file of Keras, of the authors' code, of timm or of Transformers (see
            `load_pretrained`), or None for random weights.
        drop_path_rate: stochastic depth rate of the last block, in [0, 1).
        pretrained_stem: `load`, `average` or `leave_out`, for images with a different number of channels than
            the pretrained weights (see `load_pretrained`).
        **overrides: any other argument of `ConvNeXtV2`.

    Returns:
        A `ConvNeXtV2`.

    Raises:
        ValueError: if there is no such variant.
        PretrainedError: if the weights do not fit the model.
    """
    return _create(
        ConvNeXtV2,
        variant,
        pretrained,
        pretrained_stem,
        num_classes=num_classes,
        input_shape=input_shape,
        include_top=include_top,
        drop_path_rate=drop_path_rate,
        **overrides,
    )


def create_convnext_v1(
    variant: str,
    num_classes: int = 1000,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    include_top: bool = True,
    pretrained: str | os.PathLike | None = None,
    drop_path_rate: float = 0.0,
    pretrained_stem: str = "load",
    **overrides: Any,
) -> ConvNeXtV1:
    """Creates a ConvNeXt V1; like `create_convnext_v2`, but with the variants and arguments of `ConvNeXtV1`."""
    return _create(
        ConvNeXtV1,
        variant,
        pretrained,
        pretrained_stem,
        num_classes=num_classes,
        input_shape=input_shape,
        include_top=include_top,
        drop_path_rate=drop_path_rate,
        **overrides,
    )


def _create(
    kind: type[ConvNeXt], variant: str, pretrained: str | os.PathLike | None, pretrained_stem: str, **arguments: Any
) -> Any:
    model = kind.from_variant(variant, **arguments)
    if pretrained is not None:
        load_pretrained(model, pretrained, pretrained_stem).log()
    return model
