"""How much the fuzz tests try: little in the suite, and always the same; with `FUZZ=1000` in the environment more."""

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

LONG = int(os.environ.get("FUZZ", 0))


def fuzzed(examples):
    """Returns Hypothesis's settings of a test that the suite runs with so many examples."""
    return settings(
        max_examples=LONG or examples,
        derandomize=not LONG,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged(draw, content):
    """Bytes that were damaged: some changed, a piece cut out, the end cut off, or something put in.

    Args:
        draw: given by Hypothesis.
        content: the bytes.
    """
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        size = draw(st.integers(1, 16))
        kind = draw(st.sampled_from(("change", "change", "remove", "cut", "insert")))
        if kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + size]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=size, max_size=size))
        else:
            data[at : at + size] = draw(st.binary(min_size=size, max_size=size))
    return bytes(data)
