"""Tones beside Pillow's ImageOps: equal to the last bit."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import ImageOps

from experiments.data.augmentation import colors
from tests.experiments.images import from_pillow, to_pillow, varied

CASES = {
    "autocontrast": (colors.autocontrast, ImageOps.autocontrast, [()]),
    "equalize": (colors.equalize, ImageOps.equalize, [()]),
    "invert": (colors.invert, ImageOps.invert, [()]),
    "posterize": (colors.posterize, ImageOps.posterize, [(bits,) for bits in range(1, 9)]),
    "solarize": (colors.solarize, ImageOps.solarize, [(threshold,) for threshold in (0, 1, 26, 128, 255, 256)]),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_tones_equal_pillow(name, channels):
    change, reference, all_arguments = CASES[name]
    for kind, pixels in varied(channels).items():
        batch = np.stack([pixels, pixels[::-1], pixels[:, ::-1] // 2])
        for arguments in all_arguments:
            expected = [from_pillow(reference(to_pillow(image), *arguments)) for image in batch]
            own = ([value] * 3 for value in arguments)
            np.testing.assert_array_equal(
                change(tf.constant(batch), *map(tf.constant, own)), expected, f"{kind} {arguments}"
            )
        if all_arguments != [()]:  # another one for each image
            own = np.array([all_arguments[i][0] for i in (0, -1, 3)], np.int32)
            expected = [from_pillow(reference(to_pillow(image), int(value))) for image, value in zip(batch, own)]
            np.testing.assert_array_equal(change(tf.constant(batch), own), expected, kind)


def test_equalizing_clips_what_a_small_image_leaves_over():
    """A step of 1 and 254 pixels over: the table goes beyond 255."""
    pixels = np.random.default_rng(1).integers(0, 256, (22, 23, 1), dtype=np.uint8)
    expected = from_pillow(ImageOps.equalize(to_pillow(pixels)))
    np.testing.assert_array_equal(colors.equalize(tf.constant(pixels[np.newaxis]))[0], expected)


def test_no_bits_leave_black():
    assert not colors.posterize(tf.constant(varied(3)["noise"][np.newaxis]), tf.constant([0])).numpy().any()


@pytest.mark.parametrize("addition", [0, 1, 99, 110, 127])
def test_solarize_add_brightens_the_dark_half_alone(addition):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    expected = [min(255, value + addition) if value < 128 else value for value in range(256)]
    actual = colors.solarize_add(tf.constant(pixels[np.newaxis]), tf.constant([addition]))
    np.testing.assert_array_equal(actual.numpy().ravel(), expected)
