"""The PyTorch contender is the same function as the dense execution of the Keras model."""

import numpy as np
import pytest
import tensorflow as tf

from convnext import ConvNeXtV2
from experiments.benchmarks.flops import Sizes, forward_flops
from fcmae import FCMAE
from tests.comparison import assert_close, gradients, to_numpy
from tests.small_models import parts_of, random_images, random_visible, randomize

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from experiments.benchmarks.pytorch_masked_dense import MaskedDenseFCMAE  # noqa: E402

DEPTHS, DIMS, DECODER_DIM, PATCHES, KEPT = (1, 2, 1), (4, 6, 8), 8, 6, 2


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


def batch():
    return random_images(2, 32, 48, 3), random_visible(2, PATCHES, KEPT)


def torch_loss(model):
    images, visible = batch()
    return model(torch.tensor(images).permute(0, 3, 1, 2), torch.tensor(visible))


def test_loss_and_gradients_are_those_of_the_dense_execution(models):
    keras_model, torch_model = models
    images, visible = (tf.constant(array) for array in batch())

    def keras_loss():
        prediction = keras_model.predict_patches(images, visible, training=True)
        return tf.reduce_mean(keras_model.image_losses(images, prediction, visible))

    torch_model.zero_grad()
    loss = torch_loss(torch_model)
    loss.backward()
    assert_close(loss.detach().numpy(), to_numpy(keras_loss()), 1e-5)
    variables = parts_of(keras_model)
    parameters = dict(torch_model.named_parameters())
    for name, expected in zip(variables, gradients(keras_loss, variables.values())):
        actual = parameters[torch_name(name)].grad
        assert_close(actual.numpy(), torch_layout(expected, actual.shape), 1e-5)


def test_its_convolutions_take_the_operations_of_the_dense_execution(models):
    with FlopCounterMode(display=False) as counter:
        torch_loss(models[1])
    sizes = Sizes(DEPTHS, DIMS, DECODER_DIM, stem_stride=4, channels=3, num_patches=PATCHES, num_visible=KEPT)
    counted = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    assert counted == 2 * sum(forward_flops(sizes, "dense").values())
