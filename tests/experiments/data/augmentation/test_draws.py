"""Draws for a batch are TensorFlow's own stateless draws of each seed."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.data.augmentation import draws

SEEDS = tf.constant(np.random.default_rng(0).integers(-(2**63), 2**63 - 1, (37, 2)), tf.int64)


def one_by_one(draw):
    return np.stack([draw(seed) for seed in SEEDS])


@pytest.mark.parametrize("batch", [slice(None), slice(2)])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("shape", [(), (3,), (4, 10), (1001,)])
def test_uniform_numbers_are_the_same_to_the_last_bit(shape, dtype, batch):
    expected = one_by_one(lambda seed: tf.random.stateless_uniform(shape, seed, dtype=dtype))
    np.testing.assert_array_equal(draws.uniform(SEEDS[batch], shape, dtype), expected[batch])
    np.testing.assert_array_equal(draws.uniform(SEEDS[:1], shape, dtype), expected[:1])


@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float32, 4e-6), (tf.float64, 1e-14)])
@pytest.mark.parametrize("count", [1, 2, 1001])
def test_normal_numbers_are_the_same_but_for_rounding(count, dtype, tolerance):
    expected = one_by_one(lambda seed: tf.random.stateless_normal([count], seed, dtype=dtype))
    np.testing.assert_allclose(draws.normal(SEEDS, count, dtype), expected, atol=tolerance)
    np.testing.assert_array_equal(draws.normal(SEEDS[:1], count, dtype), expected[:1])


@pytest.mark.parametrize("batch", [2, 3, 7, 36])
def test_the_numbers_of_an_image_do_not_depend_on_the_batch_that_it_is_in(batch):
    for draw in (lambda seeds: draws.normal(seeds, 77), lambda seeds: draws.normal(seeds, 3, tf.float64)):
        np.testing.assert_array_equal(draw(SEEDS)[-batch:], draw(SEEDS[-batch:]))


def test_whole_numbers_are_the_same():
    expected = one_by_one(lambda seed: tf.random.stateless_uniform([3], seed, maxval=tf.int32.max, dtype=tf.int32))
    np.testing.assert_array_equal(draws.integers(SEEDS, 3), expected)
    np.testing.assert_array_equal(draws.integers(SEEDS[:1], 3), expected[:1])


def test_streams_and_seeds_of_positions_are_folded_in_as_tensorflow_does():
    for i, seeds in enumerate(draws.streams(SEEDS, 4)):
        expected = one_by_one(lambda seed, i=i: tf.random.fold_in(seed, i))
        np.testing.assert_array_equal(seeds, expected)
        np.testing.assert_array_equal(draws.streams(SEEDS[:1], 4)[i], expected[:1])
    seed, positions = tf.constant([2**40, 5], tf.int64), [0, 1, 2**35]
    expected = [tf.random.fold_in(seed, tf.constant(position, tf.int64)) for position in positions]
    np.testing.assert_array_equal(draws.fold_in(seed, tf.constant(positions, tf.int64)), expected)
