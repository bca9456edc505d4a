"""Windows, shifts, flips, resizing and normalization, of one image and of batches."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from experiments.data.augmentation import views
from tests.experiments.data.augmentation.paths import PATHS, over_seeds

SEEDS = [(3, i) for i in range(400)]


def windows(size, scale, seeds=SEEDS, aspect=1.0, path="batch"):
    """`(N, 4)` int: the windows of many seeds."""
    draw = lambda sizes, seeds: views.random_window(sizes, scale, seeds, aspect)  # noqa: E731
    return over_seeds(draw, seeds, path, size)


def pillow_resize(pixels, size):
    """Bicubic with antialiasing, plane by plane in float32, and clipped to [0, 255]."""
    planes = [Image.fromarray(plane.astype("float32")) for plane in np.moveaxis(pixels, -1, 0)]
    resized = [np.asarray(plane.resize(size[::-1], Image.Resampling.BICUBIC)) for plane in planes]
    return np.clip(np.stack(resized, -1), 0, 255)


def test_windows_of_a_batch_are_those_of_its_images():
    for aspect in (1.0, 1.7):
        one, all_at_once = (windows((375, 500), (0.05, 1.0), SEEDS, aspect, path) for path in PATHS)
        np.testing.assert_array_equal(one, all_at_once)
    sizes = np.random.default_rng(0).integers(1, 60, (399, 2)).astype("int32")
    draw = lambda sizes, seeds: views.random_window(sizes, (0.2, 1.0), tf.constant(seeds, tf.int64))  # noqa: E731
    one = [draw(size[np.newaxis], [seed])[0] for size, seed in zip(sizes, SEEDS)]
    np.testing.assert_array_equal(draw(sizes, SEEDS[:399]), one)


@pytest.mark.parametrize(
    ("size", "scale"),
    [
        ((100, 100), (0.2, 1.0)),
        ((100, 100), (0.5, 0.6)),
        ((100, 130), (0.2, 1.0)),
        ((60, 200), (0.05, 0.1)),
        ((240, 90), (0.05, 0.2)),
    ],
)
def test_windows_lie_in_the_image_and_keep_the_bounds_of_area_and_aspect(size, scale):
    top, left, height, width = windows(size, scale).T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= size[0]).all() and (left + width <= size[1]).all()
    area, aspect = height * width / (size[0] * size[1]), width / height
    whole = (height == size[0]) & (width == size[1])  # where no draw fits
    assert whole.mean() < 0.2
    margin = 1.0 / min(height.min(), width.min())  # sides are whole numbers of pixels
    assert (area[~whole] >= scale[0] * (1 - 2 * margin)).all()
    assert (area[~whole] <= scale[1] * (1 + 2 * margin)).all()
    assert (aspect[~whole] >= 3 / 4 * (1 - margin)).all() and (aspect[~whole] <= 4 / 3 * (1 + margin)).all()


def test_windows_spread_over_positions_areas_and_aspects():
    top, left, height, width = windows((200, 200), (0.2, 1.0)).T
    area = height * width / 40000
    assert area.min() < 0.25 and area.max() > 0.85 and 0.4 < area.mean() < 0.65
    assert (width / height).min() < 0.8 and (width / height).max() > 1.25
    slack = np.maximum(200 - height, 1)
    assert 0.4 < (top / slack).mean() < 0.6 and (top / slack).std() > 0.2


@pytest.mark.parametrize("size", [(224, 224), (375, 500)])
def test_areas_and_aspects_have_the_distribution_of_torchvision(size):
    rng, reference = np.random.default_rng(0), []
    while len(reference) < 20000:
        area, aspect = size[0] * size[1] * rng.uniform(0.08, 1.0), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        height, width = round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))
        if height <= size[0] and width <= size[1]:
            reference.append((height, width))
    seeds = [(5, i) for i in range(2000)]
    for value in (lambda sides: sides[:, 0] * sides[:, 1] / np.prod(size), lambda sides: sides[:, 0] / sides[:, 1]):
        expected, found = value(np.array(reference)), value(windows(size, (0.08, 1.0), seeds)[:, 2:])
        # The largest distance between the distributions: above 0.04 for one of a thousand fair draws.
        assert stats.ks_2samp(expected, found).statistic < 0.045


def test_a_window_is_a_function_of_its_seed():
    first, again = windows((200, 200), (0.2, 1.0)), windows((200, 200), (0.2, 1.0))
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first, axis=0)) > 390


def test_a_window_of_the_whole_area_is_the_whole_image():
    assert (windows((64, 64), (1.0, 1.0), SEEDS[:20]) == [0, 0, 64, 64]).all()


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((20, 400), (0, 186, 20, 27)),
        ((400, 21), (186, 0, 28, 21)),
        ((30, 41), (0, 0, 30, 40)),
        ((41, 30), (0, 0, 40, 30)),
    ],
)
def test_where_no_window_fits_it_is_the_largest_in_the_middle_that_keeps_the_aspect(size, window):
    """The numbers are those of torchvision: for 20x400 a width of round(20 * 4 / 3) = 27, at (400 - 27) // 2."""
    assert (windows(size, (0.99, 1.0), SEEDS[:5]) == window).all()


@pytest.mark.parametrize("size", [(30, 40), (40, 30), (35, 35)])
def test_a_window_of_the_whole_area_is_an_image_of_an_allowed_aspect_but_for_a_pixel(size):
    assert np.abs(windows(size, (1.0, 1.0), SEEDS[:50]) - (0, 0, *size)).max() <= 1


@pytest.mark.parametrize("path", PATHS)
def test_a_shift_moves_both_ways_and_lets_black_in(path):
    pixels = np.random.default_rng(0).uniform(1, 255, (6, 8, 3)).astype("float32")
    padded = np.pad(pixels, [(2, 2), (3, 3), (0, 0)])
    possible = {padded[i : i + 6, j : j + 8].tobytes(): (i, j) for i in range(5) for j in range(7)}
    shifted = over_seeds(lambda images, seeds: views.random_shift(images, (2, 3), seeds), SEEDS, path, pixels)
    found = [possible[image.tobytes()] for image in shifted]
    expected = [tf.image.stateless_random_crop(padded, pixels.shape, seed) for seed in SEEDS[:20]]
    np.testing.assert_array_equal(shifted[:20], expected)
    counts = np.zeros((5, 7))
    np.add.at(counts, tuple(np.transpose(found)), 1)
    assert counts.min() >= 2 and counts.max() <= 26  # 400 draws over 35 places


@pytest.mark.parametrize(
    ("size", "share", "window"),
    [
        ((100, 100), 1.0, (0, 0, 100, 100)),
        ((100, 200), 1.0, (0, 50, 100, 100)),
        ((301, 200), 0.875, (63, 12, 175, 175)),
        ((256, 256), 0.875, (16, 16, 224, 224)),
        ((1, 5), 0.1, (0, 2, 1, 1)),
    ],
)
def test_the_centre_window_is_a_square_in_the_middle(size, share, window):
    np.testing.assert_array_equal(views.centre_window(tf.constant(size), share), window)


@pytest.mark.parametrize(
    ("size", "aspect", "share", "window"),
    [
        ((360, 480), 128 / 96, 1.0, (0, 0, 360, 480)),
        ((360, 480), 160 / 96, 1.0, (36, 0, 288, 480)),
        ((300, 800), 160 / 96, 1.0, (0, 150, 300, 500)),
        ((300, 800), 160 / 96, 0.5, (75, 275, 150, 250)),
        ((300, 200), 96 / 160, 1.0, (0, 10, 300, 180)),
        ((1, 1), 160 / 96, 0.1, (0, 0, 1, 1)),
    ],
)
def test_the_centre_window_keeps_the_aspect_ratio_that_is_asked_for(size, aspect, share, window):
    np.testing.assert_array_equal(views.centre_window(tf.constant(size), share, aspect), window)


@pytest.mark.parametrize("aspect", [160 / 96, 0.5])
def test_windows_are_drawn_around_the_aspect_ratio_that_is_asked_for(aspect):
    """They are the windows of a square image, stretched by it, up to two pixels, one of which may be stretched."""
    size = (300, round(300 * aspect))
    drawn = windows(size, (0.2, 1.0), SEEDS, aspect)
    squares = windows((300, 300), (0.2, 1.0)) * np.array([1, aspect, 1, aspect])
    assert (np.abs(drawn - squares) <= 2 + aspect).all()


@pytest.mark.parametrize("size", [(16, 16), (40, 40), (120, 120), (24, 40), (40, 24), (100, 20)])
def test_resizing_equals_pillow(size):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    resized = views.resize(tf.constant(pixels), size).numpy()
    assert np.abs(resized - pillow_resize(pixels, size)).max() < 1e-2
    assert resized.min() >= 0 and resized.max() <= 255


@pytest.mark.parametrize("size", [(48, 64), (30, 70)])
@pytest.mark.parametrize("target", [(16, 16), (48, 64), (60, 20), (7, 90)])
def test_windows_of_a_batch_are_resized_as_the_windows_of_its_images(size, target):
    """Of images of several sizes in one array. TensorFlow adds up to 17 products twice, with or without FMA."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, *size, 3), dtype=np.uint8)
    sizes = np.random.default_rng(1).integers(12, size, (16, 2), dtype=np.int32, endpoint=True)
    chosen = views.random_window(sizes, (0.2, 1.0), tf.constant(SEEDS[:16], tf.int64)).numpy()
    chosen[0], chosen[1] = (0, 0, *sizes[0]), (0, 0, 1, 1)
    resized = views.resize_windows(tf.constant(pixels), chosen, target).numpy()
    for image, (top, left, height, width), found in zip(pixels, chosen, resized):
        expected = views.resize(tf.constant(image[top : top + height, left : left + width]), target)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2 * 17 * 2.0**-24 * 255)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_flip_mirrors_left_and_right_half_of_the_time(path, channels):
    image = np.random.default_rng(0).uniform(0, 255, (4, 6, channels)).astype("float32")
    results = over_seeds(views.random_flip, SEEDS[:200], path, image)
    mirrored = (results != image).any(axis=(1, 2, 3))
    assert 70 <= mirrored.sum() <= 130
    np.testing.assert_array_equal(results[mirrored], np.repeat(image[np.newaxis, :, ::-1], mirrored.sum(), axis=0))
    expected = [tf.image.stateless_random_flip_left_right(image, seed) for seed in SEEDS[:20]]
    np.testing.assert_array_equal(results[:20], expected)


def test_normalization_takes_mean_and_deviation_of_each_channel():
    pixels = np.random.default_rng(0).uniform(0, 255, (5, 6, 3)).astype("float32")
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    expected = (pixels.astype("float64") / 255 - mean) / std
    np.testing.assert_allclose(views.normalize(pixels, mean, std), expected, atol=1e-5)
