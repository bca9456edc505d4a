"""Geometry beside Pillow's transform: equal but for some values that are cut off one lower or higher."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from experiments.data.augmentation import affine
from tests.experiments.images import from_pillow, to_pillow, varied

FILL = (10, 120, 250)


def transform(image, matrix, **options):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, **options)


CASES = {
    "rotate": (affine.rotate, lambda image, degrees, **options: image.rotate(degrees, **options), 30.0),
    "shear_x": (affine.shear_x, lambda image, s, **options: transform(image, (1, s, 0, 0, 1, 0), **options), 0.3),
    "shear_y": (affine.shear_y, lambda image, s, **options: transform(image, (1, 0, 0, s, 1, 0), **options), 0.3),
    "translate_x": (
        affine.translate_x,
        lambda image, s, **options: transform(image, (1, 0, s * image.width, 0, 1, 0), **options),
        0.45,
    ),
    "translate_y": (
        affine.translate_y,
        lambda image, s, **options: transform(image, (1, 0, 0, 0, 1, s * image.height), **options),
        0.45,
    ),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_geometry_equals_pillow(name, channels):
    move, reference, largest = CASES[name]
    options = {"resample": Image.Resampling.BILINEAR, "fillcolor": FILL if channels == 3 else FILL[0]}
    fill = tf.constant(FILL[:channels], tf.uint8)
    for kind, pixels in varied(channels).items():
        shares = (-1.0, -0.613, -0.1, 0.0, 0.077, 0.5, 1.0)
        batch = tf.repeat(tf.constant(pixels)[tf.newaxis], len(shares), axis=0)
        moved = move(batch, tf.constant(shares, tf.float64) * largest, fill).numpy().astype(int)
        for share, actual in zip(shares, moved):
            expected = from_pillow(reference(to_pillow(pixels), share * largest, **options)).astype(int)
            difference = np.abs(actual - expected)
            assert difference.max() <= 1 and (difference > 0).mean() < 0.3, f"{kind} {share}"


def test_whole_pixels_move_unchanged_and_the_fill_comes_in():
    pixels = varied(3)["noise"]
    distance = tf.constant([10 / pixels.shape[1]], tf.float64)
    moved = affine.translate_x(tf.constant(pixels[np.newaxis]), distance, tf.constant(FILL, tf.uint8)).numpy()[0]
    np.testing.assert_array_equal(moved[:, :-10], pixels[:, 10:])
    np.testing.assert_array_equal(moved[:, -10:], np.broadcast_to(FILL, moved[:, -10:].shape))
