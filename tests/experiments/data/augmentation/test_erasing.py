"""Random erasing: where the box lies, beside Python's arithmetic, and what is in it."""

import math

import numpy as np
import pytest
import tensorflow as tf

from experiments.data.augmentation import erasing
from tests.experiments.data.augmentation.paths import PATHS, over_seeds

SEEDS = [(7, i) for i in range(1000)]


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


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [(224, 224), (32, 32), (3, 40)])
def test_the_box_is_the_first_that_fits(size, path):
    boxes = over_seeds(lambda seeds: erasing.random_box(size, seeds), SEEDS, path)
    draws = [tf.random.stateless_uniform([10, 4], seed).numpy().astype("float64") for seed in SEEDS]
    np.testing.assert_array_equal(boxes, [reference_box(size, draw) for draw in draws])
    assert (boxes[:, :2] + boxes[:, 2:] <= size).all() and (boxes >= 0).all()


@pytest.mark.parametrize("path", PATHS)
def test_an_image_that_no_box_fits_into_stays(path):
    boxes = over_seeds(lambda seeds: erasing.random_box((1, 40), seeds), SEEDS, path)
    assert not boxes[:, 2:].any()
    image = np.ones((1, 40, 3), "float32")
    results = over_seeds(lambda images, seeds: erasing.random_erasing(images, 1.0, seeds), SEEDS[:5], path, image)
    np.testing.assert_array_equal(results, [image] * 5)


def erase(probability, path, size=(24, 30, 2), seeds=SEEDS):
    """What becomes of an image of the value 9."""
    image = np.full(size, 9.0, "float32")
    return over_seeds(lambda images, seeds: erasing.random_erasing(images, probability, seeds), seeds, path, image)


@pytest.fixture(scope="module", params=PATHS)
def erased(request):
    """`(N, 24, 30, 2)`."""
    return erase(0.25, request.param)


def test_both_paths_erase_the_same():
    one, all_at_once = (erase(1.0, path, seeds=SEEDS[:60]) for path in PATHS)
    np.testing.assert_allclose(one, all_at_once, atol=4e-6)
    np.testing.assert_array_equal(all_at_once[-7:], erase(1.0, "batch", seeds=SEEDS[53:60]))
    largest = erase(1.0, "batch", (33, 12, 1), [(8, i) for i in range(2000)])  # no box is larger than its noise
    assert len(np.unique(largest[largest != 9.0])) > 0.999 * (largest != 9.0).sum()


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


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_the_probability_is_kept_at_its_ends(probability, share, path):
    results = erase(probability, path, (16, 16, 1))
    assert (results != 9.0).any(axis=(1, 2, 3)).mean() == share
