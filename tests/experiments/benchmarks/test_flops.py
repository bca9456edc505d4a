"""The operations computed from the sizes are those of the graph that TensorFlow makes of the model."""

import math

import pytest
import tensorflow as tf

from experiments.benchmarks.candidates import example_losses, random_batch
from experiments.benchmarks.flops import forward_flops, step_flops
from experiments.config import Config, DataConfig, ModelConfig, PretrainConfig
from experiments.models import make_fcmae


def config(execution="sparse", decoder_depth=1):
    """9 patches, 3 of them visible."""
    return Config(
        model=ModelConfig(depths=(1, 2, 1), dims=(4, 6, 8), decoder_dim=10, decoder_depth=decoder_depth),
        data=DataConfig(image_size=48),
        pretrain=PretrainConfig(batch_size=2, execution=execution),
    )


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


@pytest.mark.parametrize(("decoder_depth", "ablation"), [(1, ""), (2, ""), (1, "masked_only"), (2, "masked_only")])
def test_the_dense_step_takes_the_operations_of_its_graph(decoder_depth, ablation):
    sizes = config("dense", decoder_depth)
    model, batch = make_fcmae(sizes), [tf.constant(array) for array in random_batch(sizes)]

    def loss():
        return tf.reduce_mean(example_losses(model, *batch, ablation))

    parts = step_flops(sizes, "dense", ablation)
    assert sum(parts.values()) == operations_of(loss, model.trainable_variables)


@pytest.mark.parametrize("execution", ["dense", "sparse"])
def test_the_encoder_takes_the_operations_of_its_graph(execution):
    sizes = config(execution)
    model, batch = make_fcmae(sizes), [tf.constant(array) for array in random_batch(sizes)]

    def total():
        return tf.reduce_sum(model.encode(*batch))

    parts = step_flops(sizes, execution)
    parts.pop("decoder")
    assert sum(parts.values()) == operations_of(total, model.backbone.trainable_variables)


def test_the_sparse_decoder_embeds_visible_and_predicts_hidden_patches():
    embedding, prediction = 2 * 8 * 10, 2 * 10 * 16 * 16 * 3
    sparse, dense, pytorch = (forward_flops(config(), name)["decoder"] for name in ("sparse", "dense", "pytorch"))
    assert dense - sparse == 6 * embedding  # 6 of 9 patches are hidden
    projection = 2 * 4 * 10 * 10
    assert pytorch - dense == 3 * (projection + prediction)
