"""Rules that say, by its path, how a variable is optimised: the first that matches counts."""

import dataclasses
import re

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


def rule_table(variables, rules=RULES, layer_decay=None):
    """Applies the rules to variables.

    Args:
        variables: trainable variables.
        rules: `(pattern, decays)` pairs; patterns are searched in the path.
        layer_decay: a `LayerDecay`; None for one rate for all.

    Returns:
        A list of `Row`, one a variable.

    Raises:
        ValueError: if no rule matches a variable.
    """
    rows = []
    for variable in variables:
        path = variable.path
        matching = [(pattern, decays) for pattern, decays in rules if re.search(pattern, path)]
        if not matching:
            raise ValueError(f"No rule says how {path} is optimised; add one.")
        factor = layer_decay.factor(path) if layer_decay else 1.0
        rows.append(Row(path, tuple(variable.shape), *matching[0], factor))
    return rows
