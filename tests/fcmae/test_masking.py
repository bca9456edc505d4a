"""The grid of patches, sampling, and masks at every resolution."""

import itertools

import numpy as np
import pytest
from scipy.stats import chi2

from fcmae.masking import num_visible, patch_grid, patchify, sample_visible, unpatchify, upsample_mask
from tests import references
from tests.comparison import to_numpy
from tests.small_models import random_images, random_visible


@pytest.mark.parametrize(
    ("patches", "ratio", "visible"),
    [(49, 0.6, 19), (25, 0.8, 5), (16, 0.6, 6), (10, 0.9, 1), (10, 0.7, 3), (100, 0.01, 99), (49, 0.75, 12)],
)
def test_number_of_visible_patches(patches, ratio, visible):
    assert num_visible(patches, ratio) == visible


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_mask_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(ValueError, match=r"must be in \(0, 1\), got " + str(ratio)):
        num_visible(49, ratio)


@pytest.mark.parametrize(("patches", "ratio", "visible"), [(1, 0.6, 0), (4, 0.9, 0)])
def test_a_ratio_that_leaves_nothing_visible_is_refused(patches, ratio, visible):
    with pytest.raises(ValueError, match=f"leaves {visible} of {patches} patches visible"):
        num_visible(patches, ratio)


@pytest.mark.parametrize(("height", "width", "size", "grid"), [(224, 224, 32, (7, 7)), (64, 96, 8, (8, 12))])
def test_grid(height, width, size, grid):
    assert patch_grid(height, width, size) == grid


@pytest.mark.parametrize(
    ("height", "width", "nearest"),
    [
        (100, 64, ["96x64", "128x64"]),
        (64, 100, ["64x96", "64x128"]),
        (28, 28, ["32x32"]),
        (225, 223, ["224x192", "256x224"]),
    ],
)
def test_a_size_that_does_not_divide_is_refused_with_the_nearest_that_do(height, width, nearest):
    with pytest.raises(ValueError, match=f"{height}x{width}.*32x32 pixels.* are {' and '.join(nearest)}\\.$"):
        patch_grid(height, width, 32)


def test_sampling_keeps_the_patches_of_smallest_noise():
    noise = np.random.default_rng(0).random((50, 25)).astype("float32")
    visible = to_numpy(sample_visible(noise, 0.8))
    assert set(np.unique(visible)) == {0.0, 1.0}
    np.testing.assert_array_equal(visible.sum(axis=1), 5)
    for row, kept in zip(noise, visible > 0):
        assert row[kept].max() < row[~kept].min()


def test_sampling_keeps_the_number_even_where_noise_is_equal():
    np.testing.assert_array_equal(to_numpy(sample_visible(np.zeros((3, 10), "float32"), 0.6)).sum(axis=1), 4)


def test_every_set_of_patches_is_drawn_equally_often():
    draws, patches, keep = 21_000, 6, 2
    noise = np.random.default_rng(0).random((draws, patches)).astype("float32")
    visible = to_numpy(sample_visible(noise, 0.6))
    sets = list(itertools.combinations(range(patches), keep))
    counts = np.array([visible[:, list(chosen)].all(axis=1).sum() for chosen in sets])
    expected = draws / len(sets)
    assert counts.sum() == draws
    assert np.sum((counts - expected) ** 2 / expected) < chi2.ppf(0.9999, len(sets) - 1)


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_raising_repeats_every_patch(factor):
    visible = random_visible(3, 24, 9)
    expected = np.stack([np.kron(image.reshape(4, 6), np.ones((factor, factor))) for image in visible])
    np.testing.assert_array_equal(to_numpy(upsample_mask(visible, (4, 6), factor)), expected[..., None])


@pytest.mark.parametrize(("size", "channels"), [(8, 3), (4, 1)])
def test_patchify_cuts_row_by_row_in_the_order_row_column_channel(size, channels):
    images = random_images(2, 16, 24, channels)
    np.testing.assert_array_equal(to_numpy(patchify(images, size)), references.patches(images, size))


def test_unpatchify_is_the_inverse():
    images = random_images(2, 16, 24, 3)
    restored = unpatchify(patchify(images, 8), (2, 3), 8)
    np.testing.assert_array_equal(to_numpy(restored), images)
    cut = random_images(2, 6, 192, seed=1)
    np.testing.assert_array_equal(to_numpy(patchify(unpatchify(cut, (2, 3), 8), 8)), cut)
