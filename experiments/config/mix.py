"""What `data.source` names: one source, or several with weights."""

import re

from experiments.config.sections import require

# A `+` joins two sources only before the kind of another: a path may hold one.
JOINT = re.compile(r"\+(?=digits(?:\*|\+|$)|tfds:|folder:)")
WEIGHTED = re.compile(r"(.+)\*(\d*\.?\d+)")


def parse_sources(text):
    """Returns `((source, weight), ...)` of a text such as `tfds:a*0.7+folder:B*0.3`.

    The weight is None for all where none is given, as for a single source, whose name is taken as it stands.

    Raises:
        UserError: if a source is of no known kind, some have weights and others not, or a weight is 0.
    """
    pieces = JOINT.split(text)
    matches = [WEIGHTED.fullmatch(piece) if len(pieces) > 1 else None for piece in pieces]
    sources = [match[1] if match else piece for match, piece in zip(matches, pieces)]
    for source in sources:
        kind, _, name = source.partition(":")
        require(
            source == "digits" or (kind in ("tfds", "folder") and name),
            f"data.source={source!r} is not digits, tfds:NAME or folder:PATH.",
        )
    require(all(matches) or not any(matches), f"data.source={text!r}: give a weight to each source, or to none.")
    weights = [float(match[2]) if match else None for match in matches]
    require(0.0 not in weights, f"data.source={text!r}: a weight is above 0.")
    return tuple(zip(sources, weights))
