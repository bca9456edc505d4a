"""The operations computed from the sizes are those of the graph that TensorFlow makes of the model."""

import math

import pytest
import tensorflow as tf

from convnext import ConvNeXtV2
from experiments.benchmarks.flops import Sizes, forward_flops, step_flops
from fcmae import FCMAE
from tests.small_models import random_images, random_visible

BATCH, DEPTHS, DIMS, DECODER_DIM = 2, (1, 2, 1), (4, 6, 8), 10


def model_and_sizes(execution):
    """An `FCMAE` of 6 patches, 2 of them visible, and its `Sizes`."""
    backbone = ConvNeXtV2(DEPTHS, DIMS, input_shape=(32, 48, 3), include_top=False)
    model = FCMAE(backbone, mask_ratio=0.6, decoder_dim=DECODER_DIM, execution=execution)
    return model, Sizes(DEPTHS, DIMS, DECODER_DIM, stem_stride=4, channels=3, num_patches=6, num_visible=2)


def operations_of(function, variables):
    """Counts the operations of the scalar `function()` and its gradient, from the shapes in their graph."""

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            result = function()
        return result, *tape.gradient(result, [variable.value for variable in variables])

    needed, waiting = set(), [tensor.op for tensor in step.get_concrete_function().outputs]
    while waiting:  # the gradient of the images is in the graph too, but nothing needs it
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += [tensor.op for tensor in node.inputs] + list(node.control_inputs)
    return sum(map(operations_of_node, needed))


def operations_of_node(node):
    shapes = [tensor.shape for tensor in node.inputs]
    outputs = [math.prod(tensor.shape) for tensor in node.outputs if tensor.shape.rank is not None]
    match node.type:
        case "MatMul":
            return 2 * outputs[0] * shapes[0][0 if node.get_attr("transpose_a") else 1]
        case "BatchMatMulV2":
            return 2 * outputs[0] * shapes[0][-2 if node.get_attr("adj_x") else -1]
        case "Conv2D":
            return 2 * outputs[0] * math.prod(shapes[1][:3])
        case "Conv2DBackpropInput":
            return 2 * math.prod(shapes[2]) * math.prod(shapes[1][:3])
        case "Conv2DBackpropFilter":  # its output is the gradient of the kernel
            return 2 * math.prod(shapes[2]) * math.prod(node.outputs[0].shape[:3])
        case "DepthwiseConv2dNative":
            return 2 * outputs[0] * math.prod(shapes[1][:2])
        case "DepthwiseConv2dNativeBackpropInput":
            return 2 * math.prod(shapes[2]) * math.prod(shapes[1][:2])
        case "DepthwiseConv2dNativeBackpropFilter":
            return 2 * math.prod(shapes[2]) * math.prod(node.outputs[0].shape[:2])
    assert "Call" not in node.type and "Einsum" not in node.type and "While" not in node.type, node.type
    return 0


def batch():
    return tf.constant(random_images(BATCH, 32, 48, 3)), tf.constant(random_visible(BATCH, 6, 2))


def test_the_dense_step_takes_the_operations_of_its_graph():
    model, sizes = model_and_sizes("dense")
    images, visible = batch()

    def loss():
        return tf.reduce_mean(model.image_losses(images, visible))

    parts = step_flops(sizes, BATCH, "dense")
    assert sum(parts.values()) == operations_of(loss, model.trainable_variables)


@pytest.mark.parametrize("execution", ["dense", "sparse"])
def test_the_encoder_takes_the_operations_of_its_graph(execution):
    model, sizes = model_and_sizes(execution)
    images, visible = batch()

    def total():
        return tf.reduce_sum(model.encode(images, visible))

    parts = step_flops(sizes, BATCH, execution)
    parts.pop("decoder")
    assert sum(parts.values()) == operations_of(total, model.backbone.trainable_variables)


def test_the_sparse_decoder_embeds_visible_and_predicts_hidden_patches():
    _, sizes = model_and_sizes("sparse")
    embedding, prediction = 2 * DIMS[-1] * DECODER_DIM, 2 * DECODER_DIM * 16 * 16 * 3
    sparse, dense, pytorch = (forward_flops(sizes, name)["decoder"] for name in ("sparse", "dense", "pytorch"))
    assert dense - sparse == 4 * embedding  # 4 of 6 patches are hidden
    projection = 2 * 4 * DECODER_DIM * DECODER_DIM
    assert pytorch - dense == 2 * (projection + prediction)
