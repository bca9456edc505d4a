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
        decays: whether weight decay acts on it.
    """

    path: str
    shape: tuple[int, ...]
    decays: bool


def rule_table(variables, rules=RULES):
    """Applies the rules to variables.

    Args:
        variables: trainable variables.
        rules: `(pattern, decays)` pairs; patterns are searched in the path.

    Returns:
        A list of `Row`, one a variable.

    Raises:
        ValueError: if no rule matches a variable.
    """
    rows = []
    for variable in variables:
        matching = [decays for pattern, decays in rules if re.search(pattern, variable.path)]
        if not matching:
            raise ValueError(f"No rule says how {variable.path} is optimised; add one.")
        rows.append(Row(variable.path, tuple(variable.shape), matching[0]))
    return rows
