"""Global response normalization and stochastic depth."""

import keras
import numpy as np
import pytest
from keras import ops

from convnext import GlobalResponseNormalization, StochasticDepth
from tests import references
from tests.comparison import assert_close, gradients, to_numpy
from tests.small_models import random_images, randomize, variables_of

# One unit in the last place of the half precisions.
PRECISION = {"mixed_float16": 2.0**-10, "mixed_bfloat16": 2.0**-7}


def random_grn(channels, seed=0, **arguments):
    layer = GlobalResponseNormalization(**arguments)
    layer.build((None, None, None, channels))
    return layer, randomize(variables_of(layer), seed)


def test_grn_equals_the_reference():
    layer, weights = random_grn(6)
    x = random_images(3, 5, 7, 6)
    assert_close(layer(x), references.grn(x.astype("float64"), weights), 1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1e-3])
def test_grn_has_both_epsilons_where_the_reference_has(scale):
    layer, weights = random_grn(6)
    layer.beta.assign(np.zeros(6))
    weights["beta"] = np.zeros(6)
    x = random_images(2, 2, 3, 6) * scale * np.float32([0.01, 0.1, 1, 1, 2, 4])
    assert_close(layer(x), references.grn(x.astype("float64"), weights), 1e-6)


def test_grn_takes_its_statistics_at_visible_positions_of_each_image():
    layer, weights = random_grn(6)
    x = random_images(3, 5, 7, 6)
    visible = np.random.default_rng(1).random((3, 5, 7)) < 0.4
    actual = to_numpy(layer(x, visible=visible[..., None].astype("float32")))
    expected = references.grn(x.astype("float64"), weights, visible)
    assert_close(actual[visible], expected[visible], 1e-6)


def test_grn_gives_the_same_for_positions_in_one_axis():
    layer, weights = random_grn(4)
    x = random_images(2, 5, 6, 4)
    expected = references.grn(x.astype("float64"), weights).reshape(2, 30, 4)
    assert_close(layer(x.reshape(2, 30, 4)), expected, 1e-6)


def test_a_new_grn_is_the_identity():
    layer = GlobalResponseNormalization()
    x = random_images(2, 3, 5, 4)
    np.testing.assert_array_equal(to_numpy(layer(x)), x)


@pytest.mark.parametrize("policy", PRECISION)
def test_grn_statistics_are_float32_under_half_precision(policy):
    layer, weights = random_grn(8, dtype=policy)
    # Squares of 400 overflow float16, and 3136 of them are out of reach for its sums.
    x = np.abs(random_images(2, 56, 56, 8)) + 400.0
    x = ops.cast(x, layer.compute_dtype)
    actual = layer(x)
    assert actual.dtype == layer.compute_dtype
    assert_close(actual, references.grn(to_numpy(x), weights), 1.5 * PRECISION[policy])


@pytest.mark.parametrize("policy", PRECISION)
def test_grn_keeps_small_statistics_under_half_precision(policy):
    layer, weights = random_grn(8, dtype=policy)
    layer.beta.assign(np.zeros(8))
    weights["beta"] = np.zeros(8)
    # The squares are below the smallest float16.
    x = ops.cast(random_images(2, 5, 6, 8) * 1e-4 * np.float32([1, 1, 1, 1, 4, 4, 8, 8]), layer.compute_dtype)
    assert_close(layer(x), references.grn(to_numpy(x), weights), 1.5 * PRECISION[policy])


@pytest.mark.parametrize("policy", PRECISION)
def test_grn_statistics_have_the_precision_of_float32_under_half_precision(policy):
    layer, weights = random_grn(8, dtype=policy)
    # With gamma -1 the output is x * (1 - response), and all responses are near 1: rounding them loses the difference.
    for name, value in {"gamma": -np.ones(8), "beta": np.zeros(8)}.items():
        variables_of(layer)[name].assign(value)
        weights[name] = value
    x = (1.0 + 0.1 * random_images(2, 5, 6, 8)) * np.linspace(0.98, 1.02, 8, dtype="float32")
    x = ops.cast(x, layer.compute_dtype)
    assert_close(layer(x), references.grn(to_numpy(x), weights), 1.5 * PRECISION[policy])


@pytest.mark.parametrize("policy", ["float32", *PRECISION])
def test_grn_gradient_is_finite_where_the_input_is_zero(policy):
    layer, _ = random_grn(4, dtype=policy)
    x = ops.zeros((2, 3, 5, 4), dtype=layer.compute_dtype)
    for gradient in gradients(lambda: ops.sum(ops.cast(layer(x), "float32")), [x, layer.gamma, layer.beta]):
        assert np.all(np.isfinite(gradient))


def test_grn_gradient_equals_differences_of_the_reference():
    layer, weights = random_grn(5)
    x = random_images(2, 3, 4, 5).astype("float64")
    output_weights = np.random.default_rng(1).normal(size=x.shape)
    direction = np.random.default_rng(2).normal(size=x.shape)
    tensor = ops.convert_to_tensor(x.astype("float32"))
    (gradient,) = gradients(lambda: ops.sum(layer(tensor) * output_weights.astype("float32")), [tensor])
    ahead, behind = (references.grn(x + step * direction, weights) for step in (1e-5, -1e-5))
    expected = np.sum((ahead - behind) * output_weights) / 2e-5
    assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_stochastic_depth_drops_whole_images_at_its_rate_and_scales_the_rest(rate):
    layer = StochasticDepth(rate, seed=3)
    x = np.abs(random_images(4000, 2, 3, 4)) + 0.1
    quotient = to_numpy(layer(x, training=True)) / x
    kept = quotient[:, 0, 0, 0] > 0
    expected = np.where(kept, 1.0 / (1.0 - rate), 0.0)
    np.testing.assert_allclose(quotient, np.broadcast_to(expected[:, None, None, None], x.shape), rtol=1e-6)
    four_deviations = 4.0 * np.sqrt(rate * (1.0 - rate) / len(x))
    assert abs((1.0 - kept.mean()) - rate) < four_deviations


def test_stochastic_depth_draws_anew_in_every_call():
    layer = StochasticDepth(0.5, seed=3)
    x = np.ones((64, 1, 1, 1), "float32")
    assert not np.array_equal(to_numpy(layer(x, training=True)), to_numpy(layer(x, training=True)))


@pytest.mark.parametrize(("rate", "training"), [(0.4, False), (0.4, None), (0.0, True)])
def test_stochastic_depth_passes_the_branch_as_it_is(rate, training):
    x = random_images(50, 2, 3, 4)
    np.testing.assert_array_equal(to_numpy(StochasticDepth(rate, seed=3)(x, training=training)), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_stochastic_depth_refuses_a_rate_that_is_none(rate):
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        StochasticDepth(rate)


@pytest.mark.parametrize(
    ("layer", "arguments"),
    [(StochasticDepth, {"rate": 0.25, "seed": 3}), (GlobalResponseNormalization, {"name": "somewhere"})],
)
def test_layers_survive_their_configuration(layer, arguments):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer(**arguments)))
    assert type(copy) is layer
    assert arguments.items() <= copy.get_config().items()
