"""How each variable is optimised: decay rules and layer-wise rates."""

import dataclasses
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

DECAY, NO_DECAY = True, False

# Biases, the affine parameters of normalizations, and the mask token do not decay.
RULES = (
    (r"(^|/)mask_token$", NO_DECAY),
    (r"/bias$", NO_DECAY),
    (r"/(gamma|beta)$", NO_DECAY),
    (r"/kernel$", DECAY),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """How one variable is optimised.

    Args:
        path: of the variable.
        shape: of the variable.
        rule: pattern of the rule that matched.
        decays: whether weight decay acts on it.
        rate_factor: by which its learning rate is multiplied, and its decay with it.
    """

    path: str
    shape: tuple[int, ...]
    rule: str
    decays: bool
    rate_factor: float = 1.0


def rule_table(variables: "Iterable[keras.Variable]", layer_decay: "LayerDecay | None" = None) -> list[Row]:
    """Applies the rules to variables.

    Args:
        variables: trainable variables.
        layer_decay: a `LayerDecay`; None for one rate for all.

    Returns:
        A list of `Row`, one a variable.

    Raises:
        ValueError: if no rule matches a variable.
    """
    rows = []
    for variable in variables:
        path = variable.path
        matching = [(pattern, decays) for pattern, decays in RULES if re.search(pattern, path)]
        if not matching:
            raise ValueError(f"No rule says how {path} is optimised; add one.")
        factor = layer_decay.factor(path) if layer_decay else 1.0
        rows.append(Row(path, tuple(variable.shape), *matching[0], factor))
    return rows


GROUPS = ("single", "group")
BLOCKS_OF_GROUP = 3


@dataclasses.dataclass(frozen=True)
class LayerDecay:
    """The factor by which the learning rate of each variable of a classifier is multiplied.

    A classifier has layers 0 to L + 1, and layer i the factor `decay ** (L + 1 - i)`, so the head (normalization and
    logits, or what a segmenter has beside its encoder) has 1. The layers are those of the authors' `optim_factory.py`
    (https://github.com/facebookresearch/ConvNeXt-V2):

    - `single`: every block is a layer, from 1 to L; the stem belongs to the first block, and each downsampling to the
      block after it. There is no layer 0.
    - `group`: three consecutive blocks of a stage are a layer, and what is left over at the end of a stage is one too;
      each downsampling belongs to the layer after it, and the stem is layer 0. Depths of (3, 3, 27, 3) have the 12
      groups of the authors, who have no rule for others: (2, 2, 6, 2) has 5, (2, 2, 8, 2) and (3, 3, 9, 3) have 6.

    Args:
        depths: number of blocks of each stage.
        decay: factor from a layer to the one below it, in (0, 1].
        groups: `single` or `group`.
    """

    depths: tuple[int, ...]
    decay: float
    groups: str = "single"

    @property
    def num_layers(self) -> int:
        """The number L of layers without stem and head."""
        return self._layers_before(len(self.depths))

    def layer_of(self, path: str) -> int:
        """Returns the layer that the variable of a path belongs to.

        Raises:
            ValueError: if the path is not that of a classifier's variable.
        """
        if re.search(r"(^|/)stem/", path):
            return self._layer(0, 0) if self.groups == "single" else 0
        if match := re.search(r"(^|/)stage_(\d+)/(downsampling|block_(\d+))/", path):
            return self._layer(int(match[2]), int(match[4] or 0))
        if re.search(r"(^|/)(head_norm|head|segmenter)/", path):
            return self.num_layers + 1
        raise ValueError(f"No rule says to which layer {path} belongs; add one.")

    def factor(self, path: str) -> float:
        """Returns the factor of the learning rate of the variable of a path."""
        return self.decay ** (self.num_layers + 1 - self.layer_of(path))

    def _layer(self, stage: int, block: int) -> int:
        within = block if self.groups == "single" else block // BLOCKS_OF_GROUP
        return 1 + self._layers_before(stage) + within

    def _layers_before(self, stage: int) -> int:
        size = 1 if self.groups == "single" else BLOCKS_OF_GROUP
        return sum(-(-depth // size) for depth in self.depths[:stage])
