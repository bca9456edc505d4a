"""The PyTorch candidate is the same function as the dense execution of the Keras model."""

import math

import numpy as np
import pytest
import tensorflow as tf

from convnext import ConvNeXtV2
from experiments.benchmarks.flops import forward_flops, step_flops
from experiments.config import Config, DataConfig, ModelConfig, PretrainConfig
from fcmae import FCMAE
from tests.comparison import assert_close, gradients, to_numpy
from tests.small_models import parts_of, random_images, random_visible, randomize

torch = pytest.importorskip("torch")

from torch.ops import aten  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from experiments.benchmarks.pytorch import MaskedDenseFCMAE  # noqa: E402

DEPTHS, DIMS, DECODER_DIM = (1, 2, 1), (4, 6, 8), 8
BATCH, PATCHES, KEPT = 2, 6, 2
# float32 rounds by 6e-8; from the images to a gradient some 100 operations follow one another, and their errors add up
# at random or, at worst, all to one side.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def models():
    """`(Keras model, PyTorch model)` of the same random weights."""
    backbone = ConvNeXtV2(DEPTHS, DIMS, input_shape=(32, 48, 3), include_top=False)
    keras_model = FCMAE(backbone, mask_ratio=0.6, decoder_dim=DECODER_DIM, execution="dense")
    randomize(parts_of(keras_model), scale=0.2)
    torch_model = MaskedDenseFCMAE(DEPTHS, DIMS, DECODER_DIM)
    torch_model.to(memory_format=torch.channels_last)
    state = torch_model.state_dict()
    values = {torch_name(name): variable for name, variable in parts_of(keras_model).items()}
    assert set(values) == set(state)
    torch_model.load_state_dict(
        {name: torch.tensor(torch_layout(to_numpy(values[name]), state[name].shape)).float() for name in state}
    )
    return keras_model, torch_model


def torch_name(name):
    """The name of the parameter that holds the Keras variable `name`."""
    name = name.removeprefix("decoder/").replace("block_0", "block") if name.startswith("decoder/") else name
    name = name.replace("stage_", "stages/").replace("/", ".")
    if "norm." in name:
        name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
    return name.replace(".kernel", ".weight")


def torch_layout(value, shape):
    """Brings a kernel to PyTorch's order of axes, outputs first; a product over channels is a 1x1 convolution there."""
    if value.ndim == 4:  # (height, width, inputs, outputs), depthwise (height, width, channels, 1)
        value = value.transpose(2, 3, 0, 1) if value.shape[-1] == 1 else value.transpose(3, 2, 0, 1)
    if value.ndim == 2:
        value = value.T[..., None, None]
    assert value.shape == tuple(shape)
    return np.ascontiguousarray(value)


def batch(height=32, patches=PATCHES):
    return random_images(BATCH, height, 48, 3), random_visible(BATCH, patches, KEPT)


def torch_loss(model, images, visible):
    return model(torch.tensor(images).permute(0, 3, 1, 2), torch.tensor(visible))


def test_loss_and_gradients_are_those_of_the_dense_execution(models):
    keras_model, torch_model = models
    images, visible = (tf.constant(array) for array in batch())

    def keras_loss():
        return tf.reduce_mean(keras_model.image_losses(images, visible, training=True))

    torch_model.zero_grad()
    loss = torch_loss(torch_model, *batch())
    loss.backward()
    assert_close(loss.detach().numpy(), to_numpy(keras_loss()), TOLERANCE)
    variables = parts_of(keras_model)
    parameters = dict(torch_model.named_parameters())
    for name, expected in zip(variables, gradients(keras_loss, variables.values())):
        actual = parameters[torch_name(name)].grad
        assert_close(actual.numpy(), torch_layout(expected, actual.shape), TOLERANCE)


def gradient_flops(gradient, _, kernel, *arguments, **__):
    """The operations of a convolution's gradients; PyTorch's own count is too high where there are groups."""
    of_images, of_kernel, _ = arguments[-1]  # which gradients are taken
    return 2 * math.prod(gradient) * math.prod(kernel[1:]) * (of_images + of_kernel)


def test_its_convolutions_take_the_operations_that_are_counted(models):
    with FlopCounterMode(display=False, custom_mapping={aten.convolution_backward: gradient_flops}) as counter:
        torch_loss(models[1], *batch(height=48, patches=9)).backward()
    counted = counter.get_flop_counts()["Global"]
    config = Config(
        model=ModelConfig(depths=DEPTHS, dims=DIMS, decoder_dim=DECODER_DIM),
        data=DataConfig(image_size=48),
        pretrain=PretrainConfig(batch_size=BATCH),
    )
    forward = BATCH * sum(forward_flops(config, "pytorch").values())
    assert counted[aten.convolution] == forward
    assert counted[aten.convolution_backward] == sum(step_flops(config, "pytorch").values()) - forward
