"""Whether a model runs where TensorFlow needs help."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras

_portable = contextvars.ContextVar("portable", default=False)


def is_tensorflow_on_cpu() -> bool:
    """Whether the backend is TensorFlow and there is no GPU: where some of its operations need help.

    False within `portable`.
    """
    if _portable.get():
        return False
    return keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu")


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Context in which models are called as on every device: for graphs that will run on another machine.

    Everything is computed by the framework's own operations, without what stands in for them on a CPU.
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)
