"""Loads pretrained weights into models, strictly: every variable is loaded, left out by name, or an error.

A source is read as a mapping from variable names relative to the model (`stage_0/block_1/norm/gamma`) to
arrays; the names of a model's own variables are made the same way, so sources and targets meet by name.
"""

import dataclasses
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from convnext.weights.architecture import Architecture, PretrainedError
from convnext.weights.formats import KINDS, read_checkpoint
from convnext.weights.names import CLASSIFIER, HEAD, HEAD_NORM
from convnext.weights.recognition import Checkpoint, listed

DECODER = "decoder/"
STEM_KERNEL = "stem/conv/kernel"
# What is done with the stem of a source: load it; average it over its input channels; leave it out.
STEMS = ("load", "average", "leave_out")
# What a folder may hold: a run's results, or a model of Transformers or timm.
IN_FOLDER = (
    "classifier.keras",
    "encoder.keras",
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What a load did, by variable name.

    Args:
        source: where the weights came from.
        loaded: variables that took their value from the source.
        left_out: variables of the source that were left out on purpose (another classifier, a decoder, a stem).
        missing: variables of the model that keep their initial values (a classifier, a decoder, a stem).
        averaged: those of `loaded` that were averaged over the input channels.
        prefix: what stood before all names of the encoder in the source, and was removed.
    """

    source: str
    loaded: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]
    averaged: tuple[str, ...] = ()
    prefix: str = ""

    def __str__(self) -> str:
        parts = [f"{self.source}: {len(self.loaded)} variables loaded"]
        if self.prefix:
            parts.append(f"the prefix {self.prefix!r} of the names removed")
        if self.averaged:
            parts.append(f"averaged over the input channels: {', '.join(self.averaged)}")
        if self.left_out:
            parts.append(f"left out on purpose: {listed(self.left_out, 12)}")
        if self.missing:
            parts.append(f"newly initialised: {', '.join(self.missing)}")
        return "; ".join(parts)

    def log(self) -> None:
        """Logs the report: as a warning where the model has weights that are new or averaged."""
        level = logging.WARNING if self.missing or self.averaged else logging.INFO
        logging.getLogger("convnext").log(level, "%s", self)


def load_pretrained(
    model: keras.Model, source: str | os.PathLike, pretrained_stem: str = "load", key: str | None = None
) -> LoadReport:
    """Loads the weights of `source` into `model`, strictly.

    The encoder's variables must match one by one, in name and shape. The last normalization and the classifier are
    loaded where both have them, the classifier for the same number of classes, and left out otherwise. A decoder is
    loaded into an `FCMAE` where the source has one, and left out for a backbone. On an error the model keeps the
    weights it had.

    Args:
        model: a `ConvNeXt`, or an `FCMAE` around one.
        source: a run's workdir (its `classifier.keras` or `encoder.keras`), a folder of Transformers or timm, or a file
            that `convnext.weights.read_checkpoint` reads: of Keras, of the authors' code, of timm or of Transformers.
        pretrained_stem: what to do with the stem's kernel where the model has another number of input channels than the
            source: `load` raises; `average` gives every channel the mean over the source's, scaled so that an image
            with equal channels has the same features; `leave_out` keeps the model's own. Where the numbers are equal it
            is loaded.
        key: what to take of a file that holds several ConvNeXts (see `convnext.weights.read_checkpoint`).

    Returns:
        A `LoadReport`.

    Raises:
        PretrainedError: if the source is not there, cannot be read, or does not fit.
        ValueError: if `pretrained_stem` is none of these.
    """
    path = find_weights(source)
    checkpoint = read_checkpoint(path, key)
    _check_options(model, checkpoint.options, path)
    return assign_weights(model, checkpoint, path, pretrained_stem)


def assign_weights(
    model: keras.Model, checkpoint: Checkpoint, path: str | os.PathLike, pretrained_stem: str = "load"
) -> LoadReport:
    """Does what `load_pretrained` does with a checkpoint that was read from `path`."""
    values: Mapping[str, np.ndarray] = checkpoint.weights
    if pretrained_stem not in STEMS:
        raise ValueError(f"pretrained_stem={pretrained_stem!r} is not one of {', '.join(STEMS)}.")
    targets = named_variables(model)
    averaged: tuple[str, ...] = ()
    optional = _optional_parts(targets, values)
    if pretrained_stem != "load" and _differs_in_channels(targets, values):
        if pretrained_stem == "average":
            values = {**values, STEM_KERNEL: _average(values[STEM_KERNEL], targets[STEM_KERNEL].shape[2])}
            averaged = (STEM_KERNEL,)
        else:
            optional.add(STEM_KERNEL)
    loaded = [name for name in targets if name in values and name not in optional]
    missing = [name for name in targets if name not in loaded]
    left_out = [*(name for name in values if name not in loaded), *checkpoint.left_out]
    _check(path, targets, values, optional, _other_sizes(model, values))
    for name in loaded:
        targets[name].assign(values[name])
    return LoadReport(str(path), tuple(loaded), tuple(left_out), tuple(missing), averaged, checkpoint.prefix)


def _check_options(model: keras.Model, options: Mapping[str, Any], path: pathlib.Path) -> None:
    """Raises PretrainedError if the source tells that it is computed otherwise than the model."""
    backbone = getattr(model, "backbone", model)
    for name, value in options.items():
        if getattr(backbone, name) != value:
            raise PretrainedError(
                f"{path} belongs to a model with {name}={value}, and this one has {name}={getattr(backbone, name)}: "
                f"make it with {name}={value!r}."
            )


def find_weights(source: str | os.PathLike) -> pathlib.Path:
    """Returns the file that holds the weights of `source`, a workdir or a file.

    Raises:
        PretrainedError: if there is none.
    """
    if not str(source):
        raise PretrainedError("The name of the pretrained weights is empty.")
    path = pathlib.Path(source)
    if path.is_dir():
        for name in IN_FOLDER:
            if (path / name).is_file():
                return path / name
        raise PretrainedError(
            f"{path} has no encoder.keras, so no run has finished there, and no model.safetensors of another library. "
            "Start the run's command again to finish it, or name another folder or a file."
        )
    if not path.exists():
        raise PretrainedError(f"There is no {path}: pretrained weights are a run's workdir, or a {KINDS} file.")
    return path


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns `{name: variable}` of the weights of a `ConvNeXt`, names relative to it; of an `FCMAE`, those of its
    backbone and, below `decoder/`, those of its decoder.

    The state of random generators is no weight and does not appear.
    """
    if hasattr(model, "backbone"):
        anchor = model.decoder.mask_token.path
        decoder = _relative_names(model.decoder.weights, anchor.removesuffix("decoder/mask_token"))
        return {**named_variables(model.backbone), **decoder}
    return _relative_names(model.weights, model.stem.conv.kernel.path.removesuffix(STEM_KERNEL))


def _relative_names(variables: Sequence[keras.Variable], prefix: str) -> dict[str, keras.Variable]:
    return {
        variable.path.removeprefix(prefix): variable for variable in variables if "seed_generator" not in variable.path
    }


def _differs_in_channels(targets: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> bool:
    """Whether the kernels of the stem are the same but for the number of input channels."""
    one: tuple[int, ...] = tuple(targets[STEM_KERNEL].shape)
    other: tuple[int, ...] = getattr(values.get(STEM_KERNEL), "shape", ())
    return len(other) == 4 and one[2] != other[2] and (*one[:2], one[3]) == (*other[:2], other[3])


def _average(kernel: np.ndarray, channels: int) -> np.ndarray:
    """`(rows, columns, in, out)` to `(rows, columns, channels, out)`; the sum over the input channels stays."""
    mean = np.mean(kernel, axis=2, keepdims=True) * (kernel.shape[2] / channels)
    return np.repeat(mean, channels, axis=2)


def _optional_parts(targets: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> set[str]:
    """Returns the names, of either side, that are left out on purpose or keep their initial values."""
    decoders = [{name for name in names if name.startswith(DECODER)} for names in (targets, values)]
    optional = set() if all(decoders) else decoders[0] | decoders[1]
    heads = [{name for name in HEAD if name in names} for names in (targets, values)]
    if any(head not in (set(), set(HEAD_NORM), set(HEAD)) for head in heads):
        return optional  # a part of a head fits nothing
    classes = [weights["head/bias"].shape[-1] if "head/bias" in weights else None for weights in (targets, values)]
    if classes[0] != classes[1]:
        optional |= set(CLASSIFIER)
    return optional | set(HEAD) - heads[0] | set(HEAD) - heads[1]


def _check(
    path: str | os.PathLike,
    targets: Mapping[str, keras.Variable],
    values: Mapping[str, np.ndarray],
    optional: set[str],
    sizes: str,
) -> None:
    """Raises PretrainedError if a variable of one side has no counterpart of its shape on the other."""
    needed = [name for name in targets if name not in optional]
    fitting = [name for name in needed if name in values and values[name].shape == tuple(targets[name].shape)]
    wrong = [name for name in needed if name not in fitting]
    unknown = [name for name in values if name not in targets and name not in optional]
    if not wrong and not unknown:
        return
    differences = [
        f"{name}: the model has {_shape(targets, name)}, the file has {_shape(values, name)}"
        for name in (*wrong, *unknown)
    ]
    shown = "; ".join(differences[:4])
    more = f"; and {len(differences) - 4} more" if len(differences) > 4 else ""
    hint = f" The weights are of a model with {sizes}." if sizes else ""
    if wrong == [STEM_KERNEL] and not unknown and _differs_in_channels(targets, values):
        hint = " For another number of input channels ask for pretrained_stem=average or pretrained_stem=leave_out."
    raise PretrainedError(
        f"{path} does not fit the model ({len(fitting)} of the model's {len(targets)} variables do): "
        f"{shown}{more}.{hint}"
    )


def _other_sizes(model: keras.Model, values: Mapping[str, np.ndarray]) -> str:
    """Returns the sizes of the model that some weights belong to, where they are not those of this one."""
    backbone = getattr(model, "backbone", model)
    try:
        theirs = Architecture.of(values)
    except PretrainedError:
        return ""
    names = ("depths", "dims", "stem_stride", "kernel_size")
    sizes = {name: getattr(theirs, name) for name in names if getattr(theirs, name) != getattr(backbone, name)}
    if backbone.version != theirs.version:
        sizes = {"version": theirs.version, **sizes}
    return " and ".join(f"{name}={str(value).strip('(,)').replace(' ', '')}" for name, value in sizes.items())


def _shape(variables: Mapping[str, Any], name: str) -> tuple[int, ...] | str:
    return tuple(variables[name].shape) if name in variables else "no such variable"
