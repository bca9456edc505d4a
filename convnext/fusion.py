"""Chains of element-wise operations in one pass over memory: the place that knows of TensorFlow's compiler, XLA.

Only such chains are compiled. Over a whole model XLA is several times slower than TensorFlow on a CPU, because its
depthwise convolution is.
"""

import functools

from convnext.devices import is_tensorflow_on_cpu


def fused(function):
    """Returns `function`, on TensorFlow on a CPU in a form that is compiled for training.

    The gradient is compiled as well. It computes from the arguments what it needs, so that nothing between arguments
    and result is kept in memory. On other backends and devices the function is returned as it is: JAX compiles whole
    steps by itself.

    Args:
        function: a pure function of tensors, written in `keras.ops`, to a tensor.
    """
    return _compiled(function) if is_tensorflow_on_cpu() else function


@functools.cache
def _compiled(function):
    import tensorflow as tf

    forward = tf.function(function, jit_compile=True)

    @tf.function(jit_compile=True)
    def backward(upstream, *arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = function(*arguments)
        return tape.gradient(result, arguments, upstream)

    @tf.custom_gradient
    def apply(*arguments):
        return forward(*arguments), lambda upstream: backward(upstream, *arguments)

    return apply
