"""Chains of element-wise operations in one pass over memory.

Only such chains are compiled. Over a whole model XLA is several times slower than TensorFlow on a CPU, because its
depthwise convolution is.
"""

import math

from keras import ops

from convnext.tf_cpu.devices import is_tensorflow_on_cpu

# Compiling takes about a second for each size, which a chain over fewer values would not win back.
LEAST_VALUES = 2**17


def fused(function):
    """Returns `function` in a form that, in graphs of TensorFlow on a CPU, is compiled where that pays.

    On other backends and devices the function is called as it is (JAX compiles whole steps by itself), and so it is
    outside of a `tf.function`, where each new size would have to wait for the compiler.

    Args:
        function: a pure function of tensors, written in `keras.ops`, to a tensor; the first is the large one.
    """

    def apply(values, *arguments):
        if not _pays(values):
            return function(values, *arguments)
        from convnext.tf_cpu.xla import compiled

        return compiled(function)(values, *arguments)

    return apply


def fused_matmul(function):
    """Returns the function of `(values, kernel, *arguments)` that is `function(values, *arguments) @ kernel`.

    Where `fused` compiles, so does this, and what `function` returns is not kept in memory for the gradient.

    Args:
        function: as for `fused`, from `(..., C)` to `(..., C)`; the kernel is `(C, D)`.
    """

    def apply(values, kernel, *arguments):
        if not _pays(values):
            return ops.matmul(function(values, *arguments), kernel)
        from convnext.tf_cpu.xla import compiled_matmul

        return compiled_matmul(function)(values, kernel, *arguments)

    return apply


def _pays(values):
    if not is_tensorflow_on_cpu() or None in values.shape or math.prod(values.shape) < LEAST_VALUES:
        return False
    from convnext.tf_cpu.xla import is_tracing

    return is_tracing()
