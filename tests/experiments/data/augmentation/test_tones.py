"""Tones beside Pillow's ImageOps: equal to the last bit."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import ImageOps

from experiments.data.augmentation import tones
from tests.experiments.images import from_pillow, to_pillow, varied

CASES = {
    "autocontrast": (tones.autocontrast, ImageOps.autocontrast, [()]),
    "equalize": (tones.equalize, ImageOps.equalize, [()]),
    "invert": (tones.invert, ImageOps.invert, [()]),
    "posterize": (tones.posterize, ImageOps.posterize, [(bits,) for bits in range(1, 9)]),
    "solarize": (tones.solarize, ImageOps.solarize, [(threshold,) for threshold in (0, 1, 26, 128, 255, 256)]),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_tones_equal_pillow(name, channels):
    change, reference, all_arguments = CASES[name]
    for kind, pixels in varied(channels).items():
        for arguments in all_arguments:
            expected = from_pillow(reference(to_pillow(pixels), *arguments))
            np.testing.assert_array_equal(change(tf.constant(pixels), *arguments), expected, f"{kind} {arguments}")


def test_equalizing_clips_what_a_small_image_leaves_over():
    """A step of 1 and 254 pixels over: the table goes beyond 255."""
    pixels = np.random.default_rng(1).integers(0, 256, (22, 23, 1), dtype=np.uint8)
    np.testing.assert_array_equal(
        tones.equalize(tf.constant(pixels)), from_pillow(ImageOps.equalize(to_pillow(pixels)))
    )


def test_no_bits_leave_black():
    assert not tones.posterize(tf.constant(varied(3)["noise"]), 0).numpy().any()


@pytest.mark.parametrize("addition", [0, 1, 99, 110, 127])
def test_solarize_add_brightens_the_dark_half_alone(addition):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    expected = [min(255, value + addition) if value < 128 else value for value in range(256)]
    np.testing.assert_array_equal(tones.solarize_add(tf.constant(pixels), addition).numpy().ravel(), expected)
