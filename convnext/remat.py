"""Gradient checkpointing: what a stage or a block computes is computed again for the gradient instead of being kept."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from convnext.types import Tensor

REMAT = ("none", "stage", "block")

_remat: contextvars.ContextVar[str] = contextvars.ContextVar("remat", default="none")


@contextlib.contextmanager
def rematerialized(remat: str) -> Iterator[None]:
    """Context in which gradients are computed with less memory and more time; numbers and random draws stay the same.

    Args:
        remat: `stage` keeps only the inputs of stages, `block` those of blocks; `none` keeps everything.

    Raises:
        ValueError: if `remat` is none of these.
    """
    if remat not in REMAT:
        raise ValueError(f"remat={remat!r} is not one of {', '.join(REMAT)}.")
    token = _remat.set(remat)
    try:
        yield
    finally:
        _remat.reset(token)


def checkpointed(
    levels: Sequence[str],
    layers: Sequence[Any],
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    training: bool | None = None,
) -> Tensor:
    """Returns `function(x)`; within `rematerialized` of one of the levels, only `x` is kept for the gradient.

    Variables are arguments of what is computed again, and random numbers are drawn from the state that the generators
    had: `keras.remat` by itself would draw others, and count them twice.

    Args:
        levels: those of `REMAT` that apply.
        layers: blocks or stages, of which the function uses the variables.
        function: of a tensor to a tensor; other tensors that it uses get no gradient.
        x: its argument.
        training: whether stochastic depth draws.
    """
    if not training or _remat.get() not in levels:
        return function(x)
    variables = [variable for layer in layers for variable in layer.weights]
    generators = [generator for layer in layers for generator in _generators(layer)]
    states = [(generator.state, generator.state.value * 1) for generator in generators]

    def of_tensors(x: Tensor, *values: Tensor) -> Tensor:
        with keras.StatelessScope(state_mapping=[*zip(variables, values), *states]):
            return function(x)

    result = keras.remat(of_tensors)(x, *map(ops.convert_to_tensor, variables))
    for generator in generators:
        generator.next()  # as it has been done inside, where it left no trace
    return result


def _generators(layer: Any) -> list[keras.random.SeedGenerator]:
    drop_paths = [block.drop_path for block in getattr(layer, "blocks", (layer,))]
    return [drop_path.seed_generator for drop_path in drop_paths if drop_path.rate > 0.0 and not drop_path.is_drawn]
