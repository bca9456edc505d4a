"""The strict loader of pretrained weights: every variable is loaded, left out by name, or an error.

A source is read as a mapping from variable names relative to the model (`stage_0/block_1/norm/gamma`) to
arrays; the names of a model's own variables are made the same way, so sources and targets meet by name.
"""

import dataclasses
import pathlib

import numpy as np

from convnext.errors import PretrainedError
from convnext.port.weights import KINDS, read_weights

HEAD_NORM = ("head_norm/gamma", "head_norm/beta")
HEAD = (*HEAD_NORM, "head/kernel", "head/bias")
DECODER = "decoder/"
STEM_KERNEL = "stem/conv/kernel"
# What is done with the stem of a source: load it; average it over its input channels; leave it out.
STEMS = ("load", "average", "leave_out")
IN_WORKDIR = ("classifier.keras", "encoder.keras")


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What a load did, by variable name.

    Args:
        source: where the weights came from.
        loaded: variables that took their value from the source.
        left_out: variables of the source that were left out on purpose (another classifier, a decoder, a stem).
        missing: variables of the model that keep their initial values (a classifier, a decoder, a stem).
        averaged: those of `loaded` that were averaged over the input channels.
    """

    source: str
    loaded: tuple[str, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]
    averaged: tuple[str, ...] = ()

    def __str__(self):
        parts = [f"{self.source}: {len(self.loaded)} variables loaded"]
        if self.averaged:
            parts.append(f"averaged over the input channels: {', '.join(self.averaged)}")
        if self.left_out:
            parts.append(f"left out on purpose: {', '.join(self.left_out)}")
        if self.missing:
            parts.append(f"newly initialised: {', '.join(self.missing)}")
        return "; ".join(parts)


def load_pretrained(model, source, stem="load"):
    """Loads the weights of `source` into `model`, strictly.

    The encoder's variables must match one by one, in name and shape. The classification head is loaded where both
    have one for the same number of classes, and left out otherwise. A decoder is loaded into an `FCMAE` where the
    source has one, and left out for a backbone. On an error the model keeps the weights it had.

    Args:
        model: a `ConvNeXt`, or an `FCMAE` around one.
        source: a run's workdir (its `classifier.keras` or `encoder.keras`), or a file that
            `convnext.port.read_weights` reads: of Keras, of the authors' code, of timm or of Transformers.
        stem: what to do with the stem's kernel, for images of another number of channels than those of the source:
            `load` expects the same number; `average` gives every channel the mean over the source's, scaled so that
            an image with equal channels has the same features; `leave_out` keeps the model's own stem.

    Returns:
        A `LoadReport`.

    Raises:
        PretrainedError: if the source is not there, cannot be read, or does not fit.
        ValueError: if `stem` is none of these.
    """
    path = find_weights(source)
    return assign_weights(model, read_weights(path), path, stem)


def assign_weights(model, values, path, stem="load"):
    """Does for weights that have been read from `path` what `load_pretrained` does; takes `{name: array}`."""
    if stem not in STEMS:
        raise ValueError(f"stem={stem!r} is not one of {', '.join(STEMS)}.")
    targets = named_variables(model)
    averaged = ()
    if stem == "average" and STEM_KERNEL in values:
        values = {**values, STEM_KERNEL: _average(values[STEM_KERNEL], targets[STEM_KERNEL].shape[2])}
        averaged = (STEM_KERNEL,)
    optional = _optional_parts(path, targets, values, stem)
    loaded = [name for name in targets if name in values and name not in optional]
    missing = [name for name in targets if name not in loaded]
    left_out = [name for name in values if name not in loaded]
    _check(path, targets, values, optional)
    for name in loaded:
        targets[name].assign(values[name])
    return LoadReport(str(path), tuple(loaded), tuple(left_out), tuple(missing), averaged)


def find_weights(source):
    """Returns the file that holds the weights of `source`, a workdir or a file.

    Raises:
        PretrainedError: if there is none.
    """
    path = pathlib.Path(source)
    if path.is_dir():
        for name in IN_WORKDIR:
            if (path / name).is_file():
                return path / name
        raise PretrainedError(
            f"{path} has no encoder.keras: no run has finished there. Start its command again to finish it, or name "
            "another workdir."
        )
    if not path.exists():
        raise PretrainedError(f"There is no {path}: pretrained weights are a run's workdir, or a {KINDS} file.")
    return path


def named_variables(model):
    """Returns `{name: variable}` of the weights of a `ConvNeXt`, names relative to it; of an `FCMAE`, those of its
    backbone and, below `decoder/`, those of its decoder.

    The state of random generators is no weight and does not appear.
    """
    if hasattr(model, "backbone"):
        decoder = {name: variable for name, variable in _relative_names(model).items() if name.startswith(DECODER)}
        return {**_relative_names(model.backbone), **decoder}
    return _relative_names(model)


def _relative_names(model):
    prefix = model.name + "/"
    return {
        variable.path.removeprefix(prefix): variable
        for variable in model.weights
        if "seed_generator" not in variable.path
    }


def _average(kernel, channels):
    """`(rows, columns, in, out)` to `(rows, columns, channels, out)`; the sum over the input channels stays."""
    mean = np.mean(kernel, axis=2, keepdims=True) * (kernel.shape[2] / channels)
    return np.repeat(mean, channels, axis=2)


def _optional_parts(path, targets, values, stem):
    """Returns the names, of either side, that are left out on purpose or keep their initial values."""
    optional = set()
    if stem == "leave_out":
        optional.add(STEM_KERNEL)
    for names in (_decoder(targets), _decoder(values)):
        if not (_decoder(targets) and _decoder(values)):
            optional.update(names)
    heads = [{name for name in HEAD if name in names} for names in (targets, values)]
    whole = [head in (set(), set(HEAD), set(HEAD_NORM)) for head in heads]
    if all(whole) and (heads[0] != heads[1] or _number_of_classes(targets) != _number_of_classes(values)):
        optional.update(HEAD)
    return optional


def _decoder(names):
    return {name for name in names if name.startswith(DECODER)}


def _number_of_classes(weights):
    return weights["head/bias"].shape[-1] if "head/bias" in weights else None


def _check(path, targets, values, optional):
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
    hint = ""
    if wrong == [STEM_KERNEL] and not unknown and values[STEM_KERNEL].shape[:2] == targets[STEM_KERNEL].shape[:2]:
        hint = " For another number of input channels ask for stem='average' or stem='leave_out'."
    raise PretrainedError(
        f"{path} does not fit the model ({len(fitting)} of {len(targets)} variables do): {shown}{more}.{hint}"
    )


def _shape(variables, name):
    return tuple(variables[name].shape) if name in variables else "no such variable"
