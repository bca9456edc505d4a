"""From the bytes of an image file to pixels, beside Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from experiments.data.decoding import decode_and_crop
from tests.experiments.images import encode, gradient

PIXELS = gradient(37, 53)
GREY = np.asarray(Image.fromarray(PIXELS).convert("L"))
WINDOW = (5, 9, 21, 30)


def decode(encoded, window=None, channels=3):
    """Decodes within the window, by default the whole image."""
    return decode_and_crop(
        tf.constant(encoded), lambda size: tf.concat([[0, 0], size], 0) if window is None else window, channels
    ).numpy()


def pillow(encoded, mode="RGB"):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert(mode))


def cropped(pixels, window=WINDOW):
    top, left, height, width = window
    return pixels[top : top + height, left : left + width]


@pytest.mark.parametrize("kind", ["png", "bmp"])
@pytest.mark.parametrize("window", [None, WINDOW])
def test_pixels_of_a_lossless_file_are_exact(kind, window):
    expected = PIXELS if window is None else cropped(PIXELS)
    np.testing.assert_array_equal(decode(encode(PIXELS, kind), window), expected)


@pytest.mark.parametrize("window", [(0, 0, 64, 80), (17, 23, 30, 41), (63, 79, 1, 1), (16, 32, 16, 16)])
def test_a_jpeg_cropped_while_decoding_equals_decoding_and_then_cropping(window):
    noise = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    content = encode(noise, "jpeg", subsampling=0)
    whole = decode(content)
    assert whole.shape == (64, 80, 3)
    np.testing.assert_array_equal(decode(content, window), cropped(whole, window))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95}])
def test_at_the_border_of_a_cropped_jpeg_only_the_smoothing_of_colours_differs(options):
    content = encode(PIXELS, "jpeg", **options)
    whole, part = cropped(decode(content)).astype(int), decode(content, WINDOW).astype(int)
    np.testing.assert_array_equal(part[1:-1, 1:-1], whole[1:-1, 1:-1])
    assert np.abs(part - whole).max() <= 4


def test_a_jpeg_looks_as_in_pillow():
    content = encode(PIXELS, "jpeg", quality=95)
    assert np.abs(decode(content).astype(int) - pillow(content)).max() <= 5


# Each with the pixels that it has to become.
KINDS = {
    "alpha": (encode(np.dstack([PIXELS, GREY])), PIXELS),
    "grey": (encode(GREY), np.repeat(GREY[..., None], 3, -1)),
    "grey and alpha": (encode(Image.fromarray(PIXELS).convert("LA")), np.repeat(GREY[..., None], 3, -1)),
    "one bit": (encode(GREY, mode="1"), np.repeat(pillow(encode(GREY, mode="1"), "L")[..., None], 3, -1)),
    "palette": (
        encode(Image.fromarray(PIXELS).quantize(64)),
        np.asarray(Image.fromarray(PIXELS).quantize(64).convert("RGB")),
    ),
    "16 bits": (encode(Image.fromarray(GREY.astype(np.uint16) * 257)), np.repeat(GREY[..., None], 3, -1)),
    "gif": (
        encode(Image.fromarray(PIXELS).quantize(64), "gif"),
        np.asarray(Image.fromarray(PIXELS).quantize(64).convert("RGB")),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_pixels_become_rgb(kind):
    content, expected = KINDS[kind]
    np.testing.assert_array_equal(decode(content, WINDOW), cropped(expected))


def test_the_first_picture_of_an_animation_counts():
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (40, 200)]
    content = encode(frames[0], "gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(content), np.full((8, 8, 3), 40))


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_a_jpeg_of_another_colour_space_becomes_rgb(mode):
    content = encode(PIXELS, "jpeg", mode=mode, quality=95)
    assert np.abs(decode(content).astype(int) - pillow(content)).max() <= 4
    np.testing.assert_array_equal(decode(content, WINDOW), cropped(decode(content)))


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_colour_becomes_grey_as_the_eye_weighs_it(kind):
    content = encode(PIXELS, kind)
    grey = decode(content, WINDOW, channels=1)
    assert grey.shape == (21, 30, 1)
    expected = cropped(decode(content)).astype("float64") @ [0.2989, 0.587, 0.114]
    assert np.abs(grey[..., 0] - expected).max() <= 1.0


@pytest.mark.parametrize("content", [b"", b"no image", encode(PIXELS, "tiff"), encode(PIXELS)[:100]])
def test_what_cannot_be_decoded_raises(content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(content)
