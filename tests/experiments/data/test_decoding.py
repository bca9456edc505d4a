"""From the bytes of an image file to pixels, beside Pillow."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from experiments.data.decoding import decode_and_crop
from experiments.data.pipeline import Preparation
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
    np.testing.assert_array_equal(decode(content), pillow(content))


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
    np.testing.assert_array_equal(decode(content), pillow(content))
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


def interlaced_png(pixels):
    """A PNG file of `(H, W, 3)` uint8 in Adam7's seven passes, which Pillow reads and does not write."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for top, left, down, right in passes for row in pixels[top::down, left::right] if row.size]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def ycck(pixels):
    """A JPEG file with the ink's colours turned into YCC, as graphics programs write: Pillow's, marked as such."""
    content = bytearray(encode(pixels, "jpeg", mode="CMYK", quality=95))
    content[content.index(b"Adobe") + 11] = 2
    return bytes(content)


FRAMES = [Image.fromarray(np.roll(PIXELS, shift, axis=0)).quantize(64) for shift in (0, 9)]
HOSTILE = {
    "interlaced PNG": interlaced_png(PIXELS),
    "palette PNG of two bits": encode(Image.fromarray(PIXELS).quantize(4), bits=2),
    "palette PNG with a transparent colour": encode(Image.fromarray(PIXELS).quantize(64), transparency=3),
    "animated GIF": encode(FRAMES[0], "gif", save_all=True, append_images=FRAMES[1:]),
    "animated PNG": encode(FRAMES[0], save_all=True, append_images=FRAMES[1:]),
    "progressive JPEG": encode(PIXELS, "jpeg", progressive=True, quality=95),
    "CMYK JPEG": encode(PIXELS, "jpeg", mode="CMYK", quality=95),
    "YCCK JPEG": ycck(PIXELS),
    "PNG of one pixel": encode(Image.fromarray(PIXELS[:1, :1])),
    "JPEG of one pixel": encode(Image.fromarray(PIXELS[:1, :1]), "jpeg"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_unusual_files_look_as_in_pillow(kind):
    content = HOSTILE[kind]
    expected = pillow(content)
    assert kind != "interlaced PNG" or (expected == PIXELS).all()
    np.testing.assert_array_equal(decode(content), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_of_16_bits_the_upper_8_count(channels):
    values = np.random.default_rng(0).integers(0, 2**16, (6, 7), dtype=np.uint16)
    content = encode(Image.fromarray(values))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), values)
    upper = np.repeat((values >> 8)[..., None], channels, axis=-1)
    assert np.abs(decode(content, channels=channels).astype(int) - upper).max() <= (channels == 1)  # weights round


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3)])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_image_of_one_pixel_or_one_row_is_read_in_training_and_evaluation(size, kind):
    """Where all of it has one colour, every window of it has."""
    pixels = Image.fromarray(np.full((*size, 3), (250, 130, 10), np.uint8))
    content = tf.constant(encode(pixels, kind, quality=95))
    prepare = Preparation(8, 3, (0.0,) * 3, (1.0,) * 3, evaluation_crop=0.875, crop_scale=(0.2, 1.0), flip=True)
    views = [prepare.for_training(content, tf.constant((0, i), tf.int64)) for i in range(3)]
    for image in [*views, prepare.for_evaluation(content)]:
        np.testing.assert_allclose(image, np.full((8, 8, 3), (250, 130, 10)) / 255, atol=0.02)
