"""Stem, downsampling, features, head, and what holds for the whole backbone."""

import keras
import numpy as np
import pytest

from convnext import ConvNeXtV1, ConvNeXtV2
from convnext.stages import Downsampling, Stem
from tests import references
from tests.comparison import assert_close, gradients, to_numpy
from tests.small_models import random_images, randomize, small_backbone, variables_of


@pytest.mark.parametrize(("size", "stride"), [((16, 24), 4), ((18, 27), 4), ((9, 12), 3), ((5, 7), 1)])
def test_stem_equals_the_reference(size, stride):
    layer = Stem(6, stride)
    layer.build((None, None, None, 3))
    weights = randomize(variables_of(layer))
    images = random_images(2, *size, 3)
    assert_close(layer(images), references.stem(images.astype("float64"), weights), 1e-5)


@pytest.mark.parametrize("size", [(6, 10), (5, 7)])
def test_downsampling_equals_the_reference(size):
    layer = Downsampling(8)
    layer.build((None, None, None, 5))
    weights = randomize(variables_of(layer))
    x = random_images(2, *size, 5)
    assert_close(layer(x), references.downsampling(x.astype("float64"), weights), 1e-5)


@pytest.mark.parametrize(
    "arguments", [{}, {"model": ConvNeXtV1}, {"stem_stride": 4, "kernel_size": 5, "depths": (2, 1), "dims": (4, 8)}]
)
def test_features_equal_the_reference(arguments):
    model = small_backbone((None, None, 2), **arguments)
    weights = randomize(variables_of(model))
    images = random_images(2, 40, 56, 2)
    actual = model.extract_features(images)
    expected = references.features(images.astype("float64"), weights, model.depths)
    assert len(actual) == len(expected)
    for actual_map, expected_map in zip(actual, expected):
        assert_close(actual_map, expected_map, 1e-5)
    assert_close(model(images), expected[-1], 1e-5)


def test_logits_equal_the_reference():
    model = small_backbone(include_top=True, num_classes=5)
    weights = randomize(variables_of(model))
    images = random_images(2, 32, 48, 3)
    assert_close(model(images), references.logits(images.astype("float64"), weights, model.depths), 1e-5)


def test_gradient_equals_differences_of_the_reference():
    model = small_backbone((16, 24, 3), include_top=True, num_classes=5)
    variables = variables_of(model)
    weights = randomize(variables)
    images = random_images(1, 16, 24, 3)
    rng = np.random.default_rng(1)
    directions = {name: rng.normal(size=value.shape) for name, value in weights.items()}

    def moved(step):
        values = {name: value + step * directions[name] for name, value in weights.items()}
        return references.logits(images.astype("float64"), values, model.depths)[0, 2]

    found = gradients(lambda: model(images)[0, 2], list(variables.values()))
    along = sum(np.sum(gradient * directions[name]) for gradient, name in zip(found, variables))
    assert along == pytest.approx((moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-4)


def test_dropout_works_on_the_pooled_features_in_training_alone():
    model = small_backbone(include_top=True, num_classes=5, dropout_rate=0.5)
    randomize(variables_of(model))
    images = random_images(4, 32, 48, 3)
    np.testing.assert_array_equal(to_numpy(model(images)), to_numpy(model(images, training=False)))
    assert np.abs(to_numpy(model(images, training=True)) - to_numpy(model(images))).max() > 0.01


@pytest.mark.parametrize("depths", [(1, 2, 1), (3, 3, 2)])
def test_drop_path_rates_rise_linearly_over_all_blocks(depths):
    model = small_backbone(depths=depths, drop_path_rate=0.3)
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    np.testing.assert_allclose(rates, np.linspace(0.0, 0.3, sum(depths)), rtol=1e-12)


def test_stochastic_depth_is_at_work_in_training_alone():
    model = small_backbone(drop_path_rate=0.5)
    randomize(variables_of(model))
    images = random_images(8, 32, 48, 3)
    plain = small_backbone()
    randomize(variables_of(plain))
    np.testing.assert_array_equal(to_numpy(model(images, training=False)), to_numpy(plain(images)))
    for training in (model(images, training=True), model.extract_features(images, training=True)[-1]):
        assert np.abs(to_numpy(training) - to_numpy(plain(images))).max() > 0.01


def test_initial_values_are_the_published_ones():
    model = small_backbone(dims=(32, 48, 64), include_top=True)
    for name, variable in variables_of(model).items():
        values = to_numpy(variable)
        if name.endswith("kernel"):
            # A normal of deviation 0.02, with or without its tails.
            assert 0.015 < values.std() < 0.0225, name
            assert abs(values.mean()) < 5 * 0.02 / np.sqrt(values.size), name
        else:
            expected = 1.0 if name.endswith("norm/gamma") else 0.0
            np.testing.assert_array_equal(values, np.full(values.shape, expected), err_msg=name)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_logits_are_float32_and_near_the_reference_under_half_precision(policy):
    model = small_backbone(include_top=True, num_classes=5, dtype=policy)
    weights = randomize(variables_of(model), scale=0.2)
    images = random_images(2, 32, 48, 3)
    assert model.extract_features(images)[-1].dtype == model.compute_dtype
    logits = model(images)
    assert logits.dtype == "float32"
    expected = references.logits(images.astype("float64"), weights, model.depths)
    assert_close(logits, expected, 0.05 if policy == "mixed_bfloat16" else 0.01)


@pytest.mark.parametrize(
    ("side", "advice"),
    [(16, "stem_stride=2"), (28, "stem_stride=3"), (8, "stem_stride=1"), (7, "smallest size for 4 stages is 8")],
)
def test_too_small_an_input_is_refused_with_advice_that_works(side, advice):
    size = {"depths": (1, 1, 1, 1), "dims": (2, 2, 2, 2), "include_top": False}
    with pytest.raises(ValueError, match=f"{side}x64 is smaller than the total stride of 32.*{advice}"):
        ConvNeXtV2(**size, input_shape=(side, 64, 3))
    if "stem_stride" in advice:
        stride = int(advice[-1])
        model = ConvNeXtV2(**size, input_shape=(side, 64, 3), stem_stride=stride)
        assert model(random_images(1, side, 64, 3)).shape[1] == 1


def test_too_small_an_image_is_refused_where_the_input_size_is_free():
    model = ConvNeXtV2((1, 1, 1, 1), (2, 2, 2, 2), include_top=False)
    with pytest.raises(ValueError, match="16x64 is smaller than the total stride of 32: use stem_stride=2 or less"):
        model(random_images(1, 16, 64, 3))


def test_channels_come_last_whatever_the_process_says():
    keras.config.set_image_data_format("channels_first")
    try:
        model = small_backbone()
        assert model(random_images(1, 32, 48, 3)).shape == (1, 4, 6, 8)
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(("depths", "dims"), [((1, 1), (4, 8, 16)), ((), ())])
def test_stages_without_match_are_refused(depths, dims):
    with pytest.raises(ValueError, match="one number for each stage"):
        ConvNeXtV2(depths, dims)


@pytest.mark.parametrize("input_shape", [(32, 32), (32, 32, None)])
def test_an_input_of_unknown_channels_is_refused(input_shape):
    with pytest.raises(ValueError, match="known number of channels"):
        ConvNeXtV2((1,), (4,), input_shape=input_shape)
