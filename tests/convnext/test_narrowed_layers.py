"""The layers that narrow a layer of Keras: what they take, how they are saved, and images of unknown size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convnext import ConvNeXtV2
from convnext.layers import LayerNormalization
from convnext.tf_cpu import convolutions
from convnext.tf_cpu.convolutions import DepthwiseConv, PatchConv
from convnext.tf_cpu.devices import portable
from tests.comparison import to_numpy
from tests.small_models import random_images, randomize

MAKE = {
    "patch": lambda **arguments: PatchConv(4, 2, **arguments),
    "depthwise": lambda **arguments: DepthwiseConv(3, **arguments),
    "dilated depthwise": lambda **arguments: DepthwiseConv(3, 2, **arguments),
    "normalization": lambda **arguments: LayerNormalization(**arguments),
    "normalization of another epsilon": lambda **arguments: LayerNormalization(1e-3, **arguments),
}
NOT_TAKEN = {"patch": {"use_bias": False}, "depthwise": {"strides": 2}, "normalization": {"axis": 1}}


@pytest.mark.parametrize("kind", MAKE)
def test_a_layer_is_made_again_from_its_configuration(kind):
    layer = MAKE[kind](name="a", dtype="mixed_bfloat16")
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config() and again.name == "a"
    images = random_images(2, 6, 8, 3)
    outputs = layer(images)
    again.build(images.shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(to_numpy(again(images)), to_numpy(outputs))


@pytest.mark.parametrize("kind", NOT_TAKEN)
def test_what_would_have_no_effect_is_refused(kind):
    with pytest.raises(TypeError, match="Unknown arguments: " + next(iter(NOT_TAKEN[kind]))):
        MAKE[kind](**NOT_TAKEN[kind])


def test_a_patch_convolution_is_that_of_keras_whatever_is_left_over():
    layer, reference = PatchConv(5, 4), keras.layers.Conv2D(5, 4, strides=4)
    images = random_images(2, 11, 17, 3)
    layer.build(images.shape)
    reference.build(images.shape)
    randomize({variable.path: variable for variable in layer.weights})
    reference.set_weights(layer.get_weights())
    np.testing.assert_allclose(to_numpy(layer(images)), to_numpy(reference(images)), atol=1e-5)


@pytest.mark.parametrize("size, padded_size", [((7, 7), (8, 8)), ((3, 5), (8, 8)), ((2, 9), (8, 9)), ((8, 8), (8, 8))])
def test_zeros_for_jax_on_a_gpu_change_no_output_and_no_gradient(size, padded_size, monkeypatch):
    layer, images = DepthwiseConv(7), tf.constant(random_images(2, *size, 3))
    layer.build(images.shape)
    randomize({variable.path: variable for variable in layer.weights})

    def outputs_and_gradients():
        with portable(), tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images)
            loss = tf.reduce_sum(outputs**2)
        return [outputs, *tape.gradient(loss, [images, layer.kernel.value, layer.bias.value])]

    expected, sizes = outputs_and_gradients(), []
    monkeypatch.setattr(convolutions, "is_jax_on_gpu", lambda: True)
    convolve = keras.layers.DepthwiseConv2D.call
    monkeypatch.setattr(
        keras.layers.DepthwiseConv2D, "call", lambda self, x: sizes.append(tuple(x.shape[1:3])) or convolve(self, x)
    )
    for actual, value in zip(outputs_and_gradients(), expected, strict=True):
        np.testing.assert_allclose(to_numpy(actual), to_numpy(value), rtol=1e-5, atol=1e-4)
    assert sizes == [padded_size]


def test_images_of_unknown_size_train_in_a_graph():
    model = ConvNeXtV2((1, 1), (4, 8), num_classes=3, input_shape=(None, None, 3))
    images = random_images(2, 16, 24, 3)
    variables = [variable.value for variable in model.trainable_variables]

    def gradients(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True) ** 2)
        return tape.gradient(loss, variables)

    graph = tf.function(gradients, input_signature=[tf.TensorSpec((None, None, None, 3))])
    for actual, expected in zip(graph(images), gradients(tf.constant(images)), strict=True):
        np.testing.assert_allclose(to_numpy(actual), to_numpy(expected), rtol=1e-4, atol=1e-6)
