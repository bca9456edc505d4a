"""Random erasing: where the box lies, beside Python's arithmetic, and what is in it."""

import math

import numpy as np
import pytest
import tensorflow as tf

from experiments.data.augmentation import erasing

SEEDS = 1000


def reference_box(size, draws):
    """The first of the draws whose box is smaller than the image both ways, as timm takes it."""
    for area_draw, aspect_draw, top_draw, left_draw in draws:
        area = (0.02 + area_draw * (1 / 3 - 0.02)) * size[0] * size[1]
        aspect = math.exp(math.log(0.3) + aspect_draw * (math.log(1 / 0.3) - math.log(0.3)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height < size[0] and width < size[1]:
            top, left = int(top_draw * (size[0] - height + 1)), int(left_draw * (size[1] - width + 1))
            return top, left, height, width
    return 0, 0, 0, 0


def over_seeds(function, dtype):
    seeds = tf.range(SEEDS, dtype=tf.int64)
    return tf.map_fn(tf.function(lambda i: function(tf.stack([7, i]))), seeds, fn_output_signature=dtype).numpy()


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (3, 40)])
def test_the_box_is_the_first_that_fits(size):
    boxes = over_seeds(lambda seed: erasing.random_box(size, seed), tf.int32)
    draws = over_seeds(lambda seed: tf.random.stateless_uniform([10, 4], seed), tf.float32)
    expected = np.array([reference_box(size, draw.astype("float64")) for draw in draws])
    # In single precision a side may be rounded the other way.
    assert (boxes != expected).any(axis=1).mean() < 0.005
    assert (boxes[:, :2] + boxes[:, 2:] <= size).all() and (boxes >= 0).all()


def test_an_image_that_no_box_fits_into_stays():
    boxes = over_seeds(lambda seed: erasing.random_box((1, 40), seed), tf.int32)
    assert not boxes[:, 2:].any()
    image = tf.ones((1, 40, 3))
    np.testing.assert_array_equal(erasing.random_erasing(image, 1.0, (0, 0)), image)


@pytest.fixture(scope="module")
def erased():
    """`(N, 24, 30, 2)`: what becomes of an image of the value 9."""
    image = tf.fill((24, 30, 2), 9.0)
    return over_seeds(lambda seed: erasing.random_erasing(image, 0.25, seed), tf.float32)


def test_a_rectangle_is_erased_in_a_quarter_of_the_images(erased):
    changed = (erased != 9.0).any(axis=-1)
    assert 0.21 < changed.any(axis=(1, 2)).mean() < 0.29
    np.testing.assert_array_equal(changed, (erased != 9.0).all(axis=-1))
    for mask in changed[changed.any(axis=(1, 2))]:
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        np.testing.assert_array_equal(mask, rows[:, np.newaxis] & columns)
        height, width = rows.sum(), columns.sum()
        assert (np.ptp(np.flatnonzero(rows)) + 1, np.ptp(np.flatnonzero(columns)) + 1) == (height, width)
        # Sides are rounded to whole pixels.
        assert (height - 0.5) * (width - 0.5) <= 24 * 30 / 3 and (height + 0.5) * (width + 0.5) >= 0.02 * 24 * 30
        assert (height - 0.5) / (width + 0.5) <= 1 / 0.3 and (height + 0.5) / (width - 0.5) >= 0.3


def test_the_noise_is_normal_in_every_pixel_and_channel_and_for_every_seed(erased):
    noise = erased[erased != 9.0]
    assert len(np.unique(noise)) > 0.99 * len(noise)
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1.0) < 0.02
    one, other = erased[..., 0], erased[..., 1]
    both = one != 9.0
    assert abs(np.corrcoef(one[both], other[both])[0, 1]) < 0.02


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_the_probability_is_kept_at_its_ends(probability, share):
    image = tf.fill((16, 16, 1), 9.0)
    results = over_seeds(lambda seed: erasing.random_erasing(image, probability, seed), tf.float32)
    assert (results != 9.0).any(axis=(1, 2, 3)).mean() == share
