"""Finds the ConvNeXt in what a file holds: in which entry, behind which prefix, by whose names, beside what.

Training scripts wrap a model in many ways: entries such as `model` or `state_dict`, prefixes such as `module.`,
`_orig_mod.` or `backbone.`, heads and other networks beside it. The encoder decides: whatever its tensors share before
the names that a library gives them is a wrapping, and what is no part of it is left out and listed.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from convnext.weights.architecture import PretrainedError
from convnext.weights.names import FORMS, HEAD, HEAD_NORM, Form, to_ours

# Parts that are taken whole or not at all, by how our names begin.
PARTS = ("head", "decoder/")
# Weights of these parts whose first axis is the width of the encoder.
JOINTS = ("head_norm/gamma", "head_norm/beta", "head/kernel", "decoder/embedding/kernel")
DECODER = {"mask_token", "embedding/kernel", "embedding/bias", "prediction/kernel", "prediction/bias"}
SHOWN = 4  # names in an error


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The weights of a ConvNeXt, as they were found.

    Args:
        weights: `{our name: array}`.
        options: arguments of the model that weights do not show, such as `activation`; empty where nothing tells them.
        prefix: what stood before all names of the encoder, such as `backbone.`.
        left_out: names of tensors beside the encoder that are not taken, as the file has them.
    """

    weights: dict[str, np.ndarray]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prefix: str = ""
    left_out: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A place where a ConvNeXt may be."""

    entry: str
    prefix: str
    form: Form
    names: dict[str, tuple[str, list[str]]]
    foreign: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def label(self) -> str:
        """What `key` calls it."""
        return ".".join(part for part in (self.entry, self.prefix.rstrip(".")) if part)

    @property
    def fits(self) -> bool:
        return not self.foreign and any("/depthwise_conv/" in ours for ours, _ in self.names.values())

    def is_called(self, key: str) -> bool:
        return f"{self.label}.".startswith(f"{key}.")


def find_convnext(
    states: Mapping[str, Mapping[str, Any]],
    key: str | None = None,
    read: Callable[[str, Any], np.ndarray] = lambda name, array: array,
) -> Checkpoint:
    """Returns the ConvNeXt in the entries of a file.

    Args:
        states: `{entry: {name: tensor}}`; the whole file is the entry of the empty name.
        key: the entry to take, or its beginning, or what stands before the names in it.
        read: function of a name and a tensor that returns the array; called only for what is taken.

    Raises:
        PretrainedError: if there is none, or more than one and no `key` chooses.
    """
    candidates = [one for entry, state in states.items() for one in _candidates(entry, state)]
    chosen = [one for one in candidates if key is None or one.is_called(key)]
    fitting: dict[str, _Candidate] = {}
    for one in chosen:
        best = fitting.get(one.label)
        if one.fits and (best is None or len(one.names) > len(best.names)):
            fitting[one.label] = one
    if len(fitting) > 1:
        raise PretrainedError(
            f"it holds {len(fitting)} ConvNeXts: {', '.join(fitting)}. Choose one by its name, with --key of "
            f"launch.convert or key={next(iter(fitting))!r} in Python"
        )
    if not fitting:
        raise PretrainedError(_why_not(states, chosen, key))
    (found,) = fitting.values()
    return _read(found, states[found.entry], read)


def _read(found: _Candidate, state: Mapping[str, Any], read: Callable[[str, Any], np.ndarray]) -> Checkpoint:
    """Reads the weights of a candidate; a head or a decoder of another width than the encoder is left out."""

    def arrays(names: Mapping[str, tuple[str, list[str]]]) -> dict[str, np.ndarray]:
        return to_ours({name: read(name, state[name]) for name in names}, names)

    of_parts = [{name: ours for name, ours in found.names.items() if ours[0].startswith(part)} for part in PARTS]
    weights = arrays({name: ours for name, ours in found.names.items() if not ours[0].startswith(PARTS)})
    left_out = list(found.left_out)
    for names in of_parts:
        try:
            part = arrays(names)
            fits = _fit(part, _width(weights))
        except PretrainedError:  # not even an array of as many axes
            fits = False
        if fits:
            weights |= part
        else:
            left_out += names
    return Checkpoint(weights, prefix=found.prefix, left_out=tuple(left_out))


def _width(weights: Mapping[str, np.ndarray]) -> int:
    """Returns the number of channels of the last stage; 0 where a part of it is missing."""
    last = max(
        (name.partition("/")[0] for name in weights if name.startswith("stage_")), key=lambda stage: int(stage[6:])
    )
    return weights.get(f"{last}/block_0/norm/gamma", np.empty(0)).size


def _fit(part: Mapping[str, np.ndarray], width: int) -> bool:
    """Whether a head or a decoder goes on where an encoder of a width ends."""
    classes = part["head/kernel"].shape[1:] == part["head/bias"].shape if "head/kernel" in part else True
    return classes and all(part[name].shape[0] == width for name in JOINTS if name in part)


def _candidates(entry: str, state: Mapping[str, Any]) -> Iterator[_Candidate]:
    for form in FORMS:
        for name in state:
            if name == form.stem or name.endswith(f".{form.stem}"):
                yield _candidate(entry, state, form, name.removesuffix(form.stem))


def _candidate(entry: str, state: Mapping[str, Any], form: Form, prefix: str) -> _Candidate:
    names = {name: found for name in state if (found := form.translate(name, prefix))}
    unknown = [name for name in state if name not in names]
    ours = {our_name for our_name, _ in names.values()}
    decoder = {name.removeprefix("decoder/") for name in ours if name.startswith("decoder/")}
    dropped: tuple[str, ...] = ()  # parts that are not as ours: taken whole or not at all
    if ours & set(HEAD) not in (set(), set(HEAD_NORM), set(HEAD)) or any(
        form.is_of_head(name, prefix) for name in unknown
    ):
        dropped += ("head",)
    if not decoder >= DECODER:
        dropped += ("decoder/",)
    taken = {name: found for name, found in names.items() if not found[0].startswith(dropped)} if dropped else names
    foreign = tuple(name for name in unknown if form.is_of_encoder(name, prefix))
    left_out = tuple(name for name in state if name not in taken and name not in foreign)
    return _Candidate(entry, prefix, form, taken, foreign, left_out)


def _why_not(states: Mapping[str, Mapping[str, Any]], chosen: Sequence[_Candidate], key: str | None) -> str:
    if key is not None and not chosen:
        entries = [entry for entry in states if entry] or ["none"]
        return f"it has no ConvNeXt in an entry {key!r}; its entries are {', '.join(entries[:8])}"
    if not chosen:
        names = list(dict.fromkeys(name for state in states.values() for name in state))
        return (
            "its names are not those of a ConvNeXt of the authors, of timm or of Transformers: it has "
            f"{listed(names) or 'no tensors of floating-point numbers'}"
        )
    best = max(chosen, key=lambda one: len(one.names) - len(one.foreign))
    if not best.foreign:
        return f"it has the stem of a ConvNeXt of {best.form.library}, and no blocks"
    return f"it has names that {best.form.library} does not give a ConvNeXt: {listed(best.foreign)}"


def listed(names: Sequence[str], shown: int = SHOWN) -> str:
    """Returns the first of some names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(map(str, names[:shown])) + more
