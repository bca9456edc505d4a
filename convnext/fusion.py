"""Chains of element-wise operations in one pass over memory: the place that knows of TensorFlow's compiler, XLA.

Only such chains are compiled. Over a whole model XLA is several times slower than TensorFlow on a CPU, because its
depthwise convolution is.
"""

import functools
import math

from keras import ops

from convnext.devices import is_tensorflow_on_cpu

# Compiling takes about a second for each size, which a chain over fewer values would not win back.
LEAST_VALUES = 2**17


def fused(function):
    """Returns `function` in a form that, in graphs of TensorFlow on a CPU, is compiled where that pays.

    The gradient is compiled as well. It computes from the arguments what it needs, so that nothing between arguments
    and result is kept in memory. On other backends and devices the function is called as it is (JAX compiles whole
    steps by itself), and so it is outside of a `tf.function`, where each new size would have to wait for the compiler.

    Args:
        function: a pure function of tensors, written in `keras.ops`, to a tensor; the first is the large one.
    """

    def apply(values, *arguments):
        chosen = _compiled(function) if _pays(values) else function
        return chosen(values, *arguments)

    return apply


def _pays(values):
    if not is_tensorflow_on_cpu():
        return False
    import tensorflow as tf

    return not tf.executing_eagerly() and None not in values.shape and math.prod(values.shape) >= LEAST_VALUES


def fused_matmul(function):
    """Returns the function of `(values, kernel, *arguments)` that is `function(values, *arguments) @ kernel`.

    Where `fused` compiles, so does this, and what `function` returns is not kept in memory either: the gradient of the
    kernel takes it from the compiled gradient, which computes it on its way.

    Args:
        function: as for `fused`, from `(..., C)` to `(..., C)`; the kernel is `(C, D)`.
    """

    def apply(values, kernel, *arguments):
        if not _pays(values):
            return ops.matmul(function(values, *arguments), kernel)
        return _compiled_matmul(function)(values, kernel, *arguments)

    return apply


@functools.cache
def _compiled(function):
    import tensorflow as tf

    forward = tf.function(function, jit_compile=True)

    @tf.function(jit_compile=True)
    def backward(upstream, *arguments):
        return _result_and_gradients(function, upstream, arguments)[1]

    @tf.custom_gradient
    def apply(*arguments):
        return forward(*arguments), lambda upstream: backward(upstream, *arguments)

    return apply


@functools.cache
def _compiled_matmul(function):
    import tensorflow as tf

    forward = tf.function(function, jit_compile=True)

    @tf.function(jit_compile=True)
    def backward(upstream, *arguments):
        return _result_and_gradients(function, upstream, arguments)

    @tf.custom_gradient
    def apply(values, kernel, *arguments):
        def gradient(upstream):
            rows = ops.reshape(upstream, (-1, kernel.shape[1]))
            of_result = ops.reshape(tf.matmul(rows, kernel, transpose_b=True), values.shape)
            result, (of_values, *of_arguments) = backward(of_result, values, *arguments)
            of_kernel = tf.matmul(ops.reshape(result, (-1, kernel.shape[0])), rows, transpose_a=True)
            return of_values, of_kernel, *of_arguments

        return ops.matmul(forward(values, *arguments), kernel), gradient

    return apply


def _result_and_gradients(function, upstream, arguments):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(arguments)
        result = function(*arguments)
    return result, tape.gradient(result, arguments, upstream)
