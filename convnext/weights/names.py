"""Names of weights elsewhere, as rules; a rule reads in both directions.

Ours are the names of `convnext.weights.loader.named_variables`: `stage_0/block_1/norm/gamma`.
"""

import dataclasses
import functools
import re

import numpy as np

from convnext.weights.errors import PretrainedError
from convnext.weights.layouts import VECTOR, Layout

PLACEHOLDER = re.compile(r"\\\{(\w+)\\\}")
NAMES_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class Rule:
    """One kind of weight.

    Args:
        ours: our name, with numbers as placeholders: `stage_{stage}/block_{block}/norm/gamma`.
        theirs: the name elsewhere, with the same placeholders.
        layout: how the array is laid out there.
    """

    ours: str
    theirs: str
    layout: Layout = VECTOR


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How a library names and lays out the weights of a ConvNeXt.

    Args:
        name: what to call it in a message.
        rules: of every weight; the first that fits a name counts.
    """

    name: str
    rules: tuple[Rule, ...]

    def unknown(self, keys):
        """Returns the names among `keys`, theirs, that no rule covers."""
        return [key for key in keys if self._our_name(key) is None]

    def read(self, tensors):
        """Returns `{our name: array}`, in Keras's layouts, of `{their name: array}`.

        Raises:
            PretrainedError: if a name is covered by no rule, or an array has another number of axes than its rule.
        """
        weights = {}
        for key, tensor in tensors.items():
            found = self._our_name(key)
            if found is None:
                raise PretrainedError(f"{key} is no weight that {self.name} gives a ConvNeXt")
            name, layout = found
            if tensor.ndim not in layout.ndims:
                expected = " or ".join(map(str, layout.ndims))
                raise PretrainedError(f"{key} has the shape {tensor.shape}, which should have {expected} axes")
            try:
                weights[name] = np.ascontiguousarray(layout.to_keras(tensor), dtype="float32")
            except ValueError as error:
                raise PretrainedError(f"{key} of shape {tensor.shape} {error}") from error
        return weights

    def write(self, weights):
        """Returns `{their name: array}` of `{our name: array}`.

        Raises:
            PretrainedError: if a weight is covered by no rule.
        """
        tensors = {}
        for name, value in weights.items():
            found = _translate(name, [(rule.ours, rule.theirs, rule.layout) for rule in self.rules])
            if found is None:
                raise PretrainedError(f"{self.name} has no name for {name}")
            key, layout = found
            tensors[key] = layout.from_keras(value)
        return tensors

    def _our_name(self, key):
        return _translate(key, [(rule.theirs, rule.ours, rule.layout) for rule in self.rules])


def recognise(keys, schemes):
    """Returns the scheme that covers all `keys`.

    Raises:
        PretrainedError: if none does; it shows the names that the best one does not cover.
    """
    unknown = {scheme: scheme.unknown(keys) for scheme in schemes}
    best = min(schemes, key=lambda scheme: len(unknown[scheme]))
    if not unknown[best] and keys:
        return best
    shown = ", ".join(list(unknown[best])[:NAMES_SHOWN]) or "nothing"
    more = f" and {len(unknown[best]) - NAMES_SHOWN} more" if len(unknown[best]) > NAMES_SHOWN else ""
    if len(unknown[best]) > len(keys) / 2 or not keys:
        raise PretrainedError(
            f"its names are not those of a ConvNeXt of the authors, of timm or of Transformers: it has {shown}{more}"
        )
    raise PretrainedError(f"it has names that {best.name} does not give a ConvNeXt: {shown}{more}")


def _translate(name, patterns):
    for source, target, layout in patterns:
        if match := _pattern(source).fullmatch(name):
            return target.format(**match.groupdict()), layout
    return None


@functools.cache
def _pattern(template):
    """The regular expression of a name with placeholders."""
    return re.compile(PLACEHOLDER.sub(r"(?P<\1>\\d+)", re.escape(template)))
