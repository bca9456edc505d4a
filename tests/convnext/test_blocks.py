"""The residual blocks."""

import keras
import numpy as np
import pytest

from convnext import ConvNextV1Block, ConvNextV2Block
from tests import references
from tests.comparison import assert_close, to_numpy
from tests.small_models import random_images, randomize, variables_of

both_versions = pytest.mark.parametrize("version", [ConvNextV1Block, ConvNextV2Block])


def random_block(dim, version=ConvNextV2Block, **arguments):
    layer = version(dim, **arguments)
    layer.build((None, None, None, dim))
    return layer, randomize(variables_of(layer))


@both_versions
@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("size", [(9, 14), (2, 3)])
def test_block_equals_the_reference(version, kernel_size, size):
    layer, weights = random_block(6, version, kernel_size=kernel_size)
    x = random_images(2, *size, 6)
    assert_close(layer(x), references.block(x.astype("float64"), weights), 1e-5)


@both_versions
def test_masked_block_equals_the_reference_without_hidden_positions(version):
    layer, weights = random_block(6, version)
    visible = np.random.default_rng(1).random((2, 9, 14)) < 0.4
    x = random_images(2, 9, 14, 6) * visible[..., None]
    actual = to_numpy(layer(x, visible=visible[..., None].astype("float32")))
    assert not actual[~visible].any()
    for image, output, kept in zip(x.astype("float64"), actual, visible):
        assert_close(output[kept], references.block_sites(image[kept], np.argwhere(kept), weights), 1e-5)


@both_versions
def test_mix_channels_is_the_branch_after_the_convolution_in_any_layout(version):
    layer, weights = random_block(6, version)
    x = random_images(2, 5, 8, 6)
    convolved = references.depthwise_conv(x.astype("float64"), references.within(weights, "depthwise_conv"))
    expected = references.block(x.astype("float64"), weights) - x
    rows = convolved.reshape(2, 40, 6).astype("float32")
    assert_close(layer.mix_channels(rows), expected.reshape(2, 40, 6), 1e-5)


def test_stochastic_depth_drops_the_branch_and_keeps_the_residual():
    rate = 0.5
    layer, _ = random_block(4, drop_path_rate=rate)
    x = random_images(40, 5, 6, 4)
    branch = to_numpy(layer(x, training=False)) - x
    added = to_numpy(layer(x, training=True)) - x
    kept = np.abs(added).max(axis=(1, 2, 3)) > 0
    assert 0 < kept.sum() < len(x)
    np.testing.assert_allclose(added[kept], branch[kept] / (1.0 - rate), rtol=1e-4, atol=1e-5)


@both_versions
def test_block_survives_its_configuration(version):
    layer = version(6, kernel_size=5, drop_path_rate=0.2, dtype="mixed_bfloat16", name="here")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (copy.name, copy.dtype_policy.name) == ("here", "mixed_bfloat16")
    assert (copy.dim, copy.kernel_size, copy.drop_path.rate) == (6, 5, 0.2)


def test_the_layer_scale_begins_small_or_as_asked_for():
    for arguments, value in (({}, 1e-6), ({"layer_scale_init": 0.5}, 0.5)):
        layer = ConvNextV1Block(4, **arguments)
        layer.build((None, None, None, 4))
        np.testing.assert_allclose(to_numpy(layer.layer_scale.gamma), np.full(4, value), rtol=1e-6)
        assert layer.get_config()["layer_scale_init"] == value
