"""Whether a model runs where TensorFlow needs help."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras

# What stands in for operations of TensorFlow on a CPU, by the names that `portable` takes.
REPLACEMENTS = ("depthwise_gradient", "patch_products", "compiled_chains")

_on_all_devices: contextvars.ContextVar[bool] = contextvars.ContextVar("on_all_devices", default=False)
_switched_off: contextvars.ContextVar[frozenset] = contextvars.ContextVar("switched_off", default=frozenset())


def is_tensorflow_on_cpu(replacement: str | None = None) -> bool:
    """Whether the backend is TensorFlow and there is no GPU: where some of its operations need help.

    False within `portable`; for the name of a replacement also where `portable` leaves out that one alone.
    """
    if replacement in _switched_off.get():
        return False
    return keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu")


def is_jax_on_gpu() -> bool:
    """Whether the backend is JAX and there is a GPU."""
    # JAX raises where it is asked for GPUs and has none.
    return keras.backend.backend() == "jax" and keras.distribution.list_devices()[0].startswith("gpu")


def compiles_chains() -> bool:
    """Whether chains of element-wise operations are compiled: with TensorFlow, on a CPU or within `compiled_chains`."""
    if "compiled_chains" in _switched_off.get():
        return False
    return is_tensorflow_on_cpu() or (_on_all_devices.get() and keras.backend.backend() == "tensorflow")


@contextlib.contextmanager
def compiled_chains() -> Iterator[None]:
    """Context in which TensorFlow compiles chains of element-wise operations on GPUs too."""
    token = _on_all_devices.set(True)
    try:
        yield
    finally:
        _on_all_devices.reset(token)


@contextlib.contextmanager
def portable(*replacements: str) -> Iterator[None]:
    """Context in which models are called as on every device: for graphs that will run on another machine.

    Everything is computed by the framework's own operations, without what stands in for them on a CPU.

    Args:
        *replacements: those of `REPLACEMENTS` to leave out; without any, all of them.
    """
    token = _switched_off.set(_switched_off.get() | frozenset(replacements or (None, *REPLACEMENTS)))
    try:
        yield
    finally:
        _switched_off.reset(token)
