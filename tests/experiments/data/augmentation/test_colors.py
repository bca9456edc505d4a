"""Light, colour and sharpness beside Pillow's ImageEnhance, equal to the last bit; the hue beside colorsys."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from PIL import ImageEnhance

from experiments.data.augmentation import colors
from tests.experiments.images import from_pillow, to_pillow, varied

CASES = {
    "brightness": (colors.brightness, ImageEnhance.Brightness),
    "contrast": (colors.contrast, ImageEnhance.Contrast),
    "saturation": (colors.saturation, ImageEnhance.Color),
    "sharpness": (colors.sharpness, ImageEnhance.Sharpness),
}
FACTORS = [0.0, 0.1, 0.19, 0.5, 0.977, 1.0, 1.3, 1.81, 1.9, 3.0]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_enhancement_equals_pillow(name, channels):
    change, reference = CASES[name]
    for kind, pixels in varied(channels).items():
        batch = np.stack([np.roll(pixels, i, axis=0) // (i % 3 + 1) for i in range(len(FACTORS))])
        expected = [from_pillow(reference(to_pillow(image)).enhance(factor)) for image, factor in zip(batch, FACTORS)]
        np.testing.assert_array_equal(change(tf.constant(batch), tf.constant(FACTORS)), expected, kind)


def test_grey_values_equal_pillow():
    """Of all values of two channels with some of the third."""
    red, green, blue = np.meshgrid(np.arange(256), np.arange(256), [0, 1, 50, 254, 255])
    pixels = np.stack([red, green, blue], -1).reshape(256, -1, 3).astype(np.uint8)
    grey = colors.grey(tf.constant(pixels[np.newaxis]))[0]
    np.testing.assert_array_equal(grey, from_pillow(to_pillow(pixels).convert("L")))


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.03, 0.25, 0.5])
def test_the_hue_turns_and_nothing_else(shift):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)

    def turned(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        return colorsys.hsv_to_rgb((hue + shift) % 1.0, saturation, value)

    expected = 255 * np.apply_along_axis(turned, -1, pixels.astype("float64"))
    actual = colors.hue(tf.constant(np.stack([pixels] * 3)), tf.constant([0.2, shift, -0.4])).numpy()[1]
    assert actual.dtype == np.uint8 and np.abs(actual - expected).max() < 1.0  # rounded


def test_a_grey_image_has_no_hue():
    pixels = varied(1)["noise"]
    np.testing.assert_array_equal(colors.hue(tf.constant([pixels]), tf.constant([0.3]))[0], pixels)
