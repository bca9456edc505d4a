"""Functions and their gradients, compiled by XLA, TensorFlow's compiler: the one file here that imports TensorFlow.

The gradient computes from the arguments what it needs, so that nothing between arguments and result is kept in memory.
"""

import functools

import tensorflow as tf


def is_tracing():
    """Whether a graph is being built, rather than operations carried out."""
    return not tf.executing_eagerly()


@functools.cache
def compiled(function):
    """Returns a pure function of tensors to a tensor, compiled."""
    forward = tf.function(function, jit_compile=True)
    backward = _compiled_gradient(function, with_result=False)

    @tf.custom_gradient
    def apply(*arguments):
        return forward(*arguments), lambda upstream: backward(upstream, *arguments)

    return apply


@functools.cache
def compiled_matmul(function):
    """Returns the function of `(values, kernel, *arguments)` that is `function(values, *arguments) @ kernel`.

    What `function` returns is not kept in memory either: the gradient of the kernel takes it from the compiled
    gradient, which computes it on its way.
    """
    forward = tf.function(function, jit_compile=True)
    backward = _compiled_gradient(function, with_result=True)

    @tf.custom_gradient
    def apply(values, kernel, *arguments):
        def gradient(upstream):
            rows = tf.reshape(upstream, (-1, kernel.shape[1]))
            of_result = tf.reshape(tf.matmul(rows, kernel, transpose_b=True), values.shape)
            result, (of_values, *of_arguments) = backward(of_result, values, *arguments)
            of_kernel = tf.matmul(tf.reshape(result, (-1, kernel.shape[0])), rows, transpose_a=True)
            return of_values, of_kernel, *of_arguments

        return tf.matmul(forward(values, *arguments), kernel), gradient

    return apply


def _compiled_gradient(function, with_result):
    @tf.function(jit_compile=True)
    def backward(upstream, *arguments):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            result = function(*arguments)
        gradients = tape.gradient(result, arguments, upstream)
        return (result, gradients) if with_result else gradients

    return backward
