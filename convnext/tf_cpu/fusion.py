"""Chains of element-wise operations and their gradients in one pass over memory, compiled by XLA.

Only such chains are compiled. Over a whole model XLA is several times slower than TensorFlow on a CPU, because its
depthwise convolution is. TensorFlow is imported where it is the backend.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from keras import ops

from convnext.tf_cpu.devices import compiles_chains
from convnext.types import Tensor

# Compiling takes about a second for each size, which a chain over fewer values would not win back.
LEAST_VALUES = 2**17


def fused(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns `function` in a form that, in graphs of TensorFlow, is compiled where `compiles_chains` and that pays.

    Elsewhere the function is called as it is (JAX compiles whole steps by itself), and so it is
    outside of a `tf.function`, where each new size would have to wait for the compiler.

    Args:
        function: a pure function of tensors, written in `keras.ops`, to a tensor; the first is the large one.
    """

    def apply(values: Tensor, *arguments: Any) -> Tensor:
        if _pays(values):
            return _compiled(function)(values, *arguments)
        return function(values, *arguments)

    return apply


def fused_matmul(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns the function of `(values, kernel, *arguments)` that is `function(values, *arguments) @ kernel`.

    Where `fused` compiles, so does this, and what `function` returns is not kept in memory for the gradient.

    Args:
        function: as for `fused`, from `(..., C)` to `(..., C)`; the kernel is `(C, D)`.
    """

    def apply(values: Tensor, kernel: Tensor, *arguments: Any) -> Tensor:
        if _pays(values):
            return _compiled_matmul(function)(values, kernel, *arguments)
        return ops.matmul(function(values, *arguments), kernel)

    return apply


def _pays(values: Tensor) -> bool:
    if not compiles_chains() or None in values.shape or math.prod(values.shape) < LEAST_VALUES:
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()  # a graph is being built


@functools.cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compiles a pure function of tensors; its gradient recomputes from the arguments, so no intermediate is kept."""
    import tensorflow as tf

    forward = tf.function(function, jit_compile=True, autograph=False)
    backward = _compiled_gradient(function, with_result=False)

    @tf.custom_gradient
    def apply(*arguments: Any) -> Tensor:
        return forward(*arguments), lambda upstream: backward(upstream, *arguments)

    return apply


@functools.cache
def _compiled_matmul(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns the function `function(values, *arguments) @ kernel`, which does not keep what `function` returns."""
    import tensorflow as tf

    forward = tf.function(function, jit_compile=True, autograph=False)
    backward = _compiled_gradient(function, with_result=True)

    @tf.custom_gradient
    def apply(values: Tensor, kernel: Tensor, *arguments: Any) -> Tensor:
        def gradient(upstream: Tensor) -> Any:
            rows = tf.reshape(upstream, (-1, kernel.shape[1]))
            of_result = tf.reshape(tf.matmul(rows, kernel, transpose_b=True), values.shape)
            result, (of_values, *of_arguments) = backward(of_result, values, *arguments)
            of_kernel = tf.matmul(tf.reshape(result, (-1, kernel.shape[0])), rows, transpose_a=True)
            return of_values, of_kernel, *of_arguments

        return tf.matmul(forward(values, *arguments), kernel), gradient

    return apply


def _compiled_gradient(function: Callable[..., Tensor], with_result: bool) -> Callable[..., Any]:
    import tensorflow as tf

    @tf.function(jit_compile=True, autograph=False)
    def backward(upstream: Tensor, *arguments: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = function(*arguments)
        gradients = tape.gradient(result, arguments, upstream)
        return (result, gradients) if with_result else gradients

    return backward
