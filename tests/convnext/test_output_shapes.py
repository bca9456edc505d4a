"""The shape and dtype that a layer announces are those it gives, for sizes known and unknown."""

import keras
import numpy as np
import pytest

from convnext import (
    ConvNeXtV1,
    ConvNextV1Block,
    ConvNextV2Block,
    GlobalResponseNormalization,
    LayerScale,
    StochasticDepth,
)
from convnext.layers import LayerNormalization
from convnext.stages import Downsampling, Stage, Stem
from convnext.tf_cpu.convolutions import DepthwiseConv, PatchConv
from fcmae import FCMAE, StemMaskedFCMAE
from tests.comparison import to_numpy
from tests.small_models import random_images, small_backbone

# Sides that strides do not divide.
ANY_SIZE = {
    "encoder": lambda: small_backbone((None, None, 3)),
    "encoder of version 1": lambda: small_backbone((None, None, 3), model=ConvNeXtV1, stem_stride=3),
    "classifier": lambda: small_backbone((None, None, 3), include_top=True, num_classes=5),
    "half-precision encoder": lambda: small_backbone((None, None, 3), dtype="mixed_bfloat16"),
    "half-precision classifier": lambda: small_backbone(
        (None, None, 3), include_top=True, num_classes=5, dtype="mixed_bfloat16"
    ),
    "stem": lambda: Stem(6, 4),
    "downsampling": lambda: Downsampling(6),
    "stage": lambda: Stage(Downsampling(6), [ConvNextV2Block(6)]),
    "first stage": lambda: Stage(None, [ConvNextV2Block(3)]),
    "block of version 1": lambda: ConvNextV1Block(3, dtype="mixed_bfloat16"),
    "block of version 2": lambda: ConvNextV2Block(3),
    "response normalization": GlobalResponseNormalization,
    "layer scale": LayerScale,
    "stochastic depth": lambda: StochasticDepth(0.5),
    "normalization": LayerNormalization,
    "depthwise convolution": lambda: DepthwiseConv(3),
    "patch convolution": lambda: PatchConv(6, 4),
}
ONE_SIZE = {
    "autoencoder": lambda: FCMAE(small_backbone((24, 32, 3)), decoder_dim=8),
    "half-precision autoencoder": lambda: FCMAE(
        small_backbone((24, 32, 3), dtype="mixed_bfloat16"), decoder_dim=8, dtype="mixed_bfloat16"
    ),
    "autoencoder masked after the stem": lambda: StemMaskedFCMAE(small_backbone((24, 32, 3)), decoder_dim=8),
}
SIZES = {name: (23, 34, 3) for name in ANY_SIZE} | {name: (24, 32, 3) for name in ONE_SIZE}


def shape_of(tensor):
    return tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype)


@pytest.mark.parametrize("name", SIZES)
def test_what_is_announced_is_what_comes(name):
    layer = {**ANY_SIZE, **ONE_SIZE}[name]()
    size = SIZES[name]
    images = random_images(2, *size)
    symbolic = layer(keras.Input(size, batch_size=2))
    assert shape_of(symbolic) == shape_of(layer(images))
    assert tuple(layer.compute_output_shape((2, *size))) == tuple(symbolic.shape)
    assert tuple(layer.compute_output_shape((None, *size))) == (None, *symbolic.shape[1:])
    assert tuple(layer(keras.Input(size)).shape) == (None, *symbolic.shape[1:])


@pytest.mark.parametrize("name", ANY_SIZE)
def test_an_unknown_side_stays_unknown_and_the_others_do_not(name):
    layer = ANY_SIZE[name]()
    height, width, channels = SIZES[name]
    images = random_images(2, height, width, channels)
    expected = tuple(layer(images).shape)
    for size in ((None, None), (height, None), (None, width)):
        inputs = keras.Input((*size, channels))
        outputs = layer(inputs)
        known = (None, *(side and of for side, of in zip(size, expected[1:3])), *expected[3:])
        assert tuple(outputs.shape) == (known if len(expected) == 4 else (None, *expected[1:]))
        assert tuple(keras.Model(inputs, outputs)(images).shape) == expected


@pytest.mark.parametrize("name", SIZES)
def test_a_layer_is_applied_to_each_step_of_a_film(name):
    layer = {**ANY_SIZE, **ONE_SIZE}[name]()
    films = random_images(2, 3, *SIZES[name])
    over_time = keras.layers.TimeDistributed(layer)
    outputs = over_time(films)
    assert tuple(outputs.shape) == tuple(over_time.compute_output_shape(films.shape))
    inputs = keras.Input((3, *SIZES[name]))
    assert tuple(keras.layers.TimeDistributed(layer)(inputs).shape) == (None, *outputs.shape[1:])
    if not name.endswith("autoencoder") and "masked" not in name:  # it draws its masks
        expected = np.stack([to_numpy(layer(films[:, step])) for step in range(3)], axis=1)
        np.testing.assert_allclose(to_numpy(outputs), expected, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("name", ["encoder", "stem", "downsampling", "stage", "block of version 2", "layer scale"])
def test_other_channels_are_refused_before_anything_is_computed(name):
    layer = ANY_SIZE[name]()
    layer(random_images(1, 32, 32, 3))
    with pytest.raises(ValueError, match="axis -1 of input shape to have value 3"):
        layer(keras.Input((32, 32, 4)))


def test_too_small_an_input_is_refused_before_anything_is_computed():
    model = small_backbone((None, None, 3))
    with pytest.raises(ValueError, match="7x32 is smaller than the total stride of 8: use stem_stride=1 or less"):
        model.compute_output_shape((None, 7, 32, 3))
    with pytest.raises(ValueError, match="7x32 is smaller than the total stride of 8: use stem_stride=1 or less"):
        model(keras.Input((7, 32, 3)))
