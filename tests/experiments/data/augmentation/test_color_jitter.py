"""Colour jitter beside Pillow: which changes, in which order, how strong."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from experiments.data.augmentation import color_jitter, colors
from tests.experiments.data.augmentation.paths import PATHS, over_seeds
from tests.experiments.images import varied

SEEDS = [(5, i) for i in range(1000)]


def draw(image, strengths, path="batch", count=None):
    change = lambda images, seeds: color_jitter.color_jitter(images, strengths, seeds)  # noqa: E731
    return over_seeds(change, SEEDS[:count], path, image)


@pytest.fixture
def noted(monkeypatch):
    """Changes that note in `(8,)` float64 their number, in the order of use, and how strong they are."""

    def note(i):
        def change(notes, amounts):
            columns = tf.unstack(notes, 8, axis=1)
            columns[0], columns[i + 1] = columns[0] * 10.0 + i + 1.0, tf.cast(amounts, tf.float64)
            return tf.stack(columns, axis=1)

        return change

    changes = tuple(note(i) for i in range(4))
    monkeypatch.setattr(color_jitter, "CHANGES", changes)
    monkeypatch.setattr(colors, "hue", changes[3])
    return np.zeros(8)


@pytest.mark.parametrize("path", PATHS)
def test_factors_are_uniform_around_one_and_the_hue_around_zero(noted, path):
    amounts = draw(noted, (0.4, 1.5, 0.2, 0.1), path)[:, 1:5]
    for drawn, (low, high) in zip(amounts.T, [(0.6, 1.4), (0.0, 2.5), (0.8, 1.2), (-0.1, 0.1)]):
        assert low <= drawn.min() < low + 0.02 * (high - low) and high - 0.02 * (high - low) < drawn.max() <= high
        assert abs(drawn.mean() - (low + high) / 2) < 0.03 * (high - low)
        assert abs(drawn.std() - (high - low) / 12**0.5) < 0.02 * (high - low)
    assert np.abs(np.corrcoef(amounts.T) - np.eye(4)).max() < 0.1


@pytest.mark.parametrize("path", PATHS)
def test_each_order_is_as_frequent(noted, path):
    orders = draw(noted, (0.4, 0.4, 0.4, 0.1), path)[:, 0].astype(int)
    expected = {int("".join(order)) for order in itertools.permutations("1234")}
    found, counts = np.unique(orders, return_counts=True)
    assert set(found) == expected and counts.min() > 15 and counts.max() < 80


def test_a_strength_of_0_leaves_a_change_out(noted):
    notes = draw(noted, (0.0, 0.4, 0.0, 0.1), count=50)
    assert set(notes[:, 0]) == {24.0, 42.0}


@pytest.mark.parametrize("channels", [1, 3])
def test_both_paths_make_the_same_changes(channels):
    pixels = varied(channels)["noise"]
    one, all_at_once = (draw(pixels, (0.4, 0.4, 0.4, 0.1), path, 40) for path in PATHS)
    np.testing.assert_array_equal(one, all_at_once)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("channels", [1, 3])
def test_real_changes_are_applied(channels, path):
    pixels = varied(channels)["noise"]
    results = draw(pixels, (0.4, 0.0, 0.0, 0.0), path, 20)
    factors = results.astype(float).mean(axis=(1, 2, 3)) / pixels.mean()
    assert results.dtype == np.uint8 and factors.min() > 0.55 and factors.max() < 1.4 and factors.std() > 0.1
    hues = draw(pixels, (0.0, 0.0, 0.0, 0.3), path, 10)
    assert ((hues == pixels).all(axis=(1, 2, 3)) == (channels == 1)).all()
