"""From the bytes of an image file to pixels, beside Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from experiments.data.augmentation import views
from experiments.data.decoding import decode_and_crop, problem_of
from experiments.data.preprocessing import Preprocessing
from experiments.data.values import Reading
from tests.experiments import image_kinds
from tests.experiments.image_kinds import pillow_pixels
from tests.experiments.images import encode, gradient, write

GOOD, REFUSED = image_kinds.good_kinds(), image_kinds.refused_kinds()

PIXELS = gradient(37, 53)
GREY = np.asarray(Image.fromarray(PIXELS).convert("L"))
WINDOW = (5, 9, 21, 30)


def decode(encoded, window=None, channels=3):
    """Decodes within the window, by default the whole image."""
    return decode_and_crop(
        tf.constant(encoded), lambda size: tf.concat([[0, 0], size], 0) if window is None else window, Reading(channels)
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


def decode_for(target, content, window):
    return decode_and_crop(tf.constant(content), lambda _: tf.constant(window), Reading(), target=target).numpy()


def drafted(content, ratio):
    """Pillow's picture of a JPEG at `1 / ratio` of its size, upright."""
    image = Image.open(io.BytesIO(content))
    image.draft("RGB", (-(-image.width // ratio), -(-image.height // ratio)))
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("target", "ratio"), [((10, 24), 8), ((11, 24), 4), ((10, 41), 4), ((40, 97), 1)])
def test_a_jpeg_many_times_the_target_is_decoded_smaller_as_pillow_does(orientation, target, ratio):
    noise = np.random.default_rng(0).integers(0, 256, (240, 480, 3), dtype=np.uint8)
    noise = noise if orientation < 5 else noise.transpose(1, 0, 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(noise, "jpeg", subsampling=0, exif=exif)
    found = decode_for(target, content, (64, 48, 160, 384))  # of the upright image, in whole blocks
    top, left, height, width = (side // ratio for side in (64, 48, 160, 384))
    np.testing.assert_array_equal(found, drafted(content, ratio)[top : top + height, left : left + width])


def test_windows_in_images_of_any_size_are_decoded_smaller():
    random = np.random.default_rng(0)
    for height, width in random.integers(65, 120, (12, 2)):
        content = encode(gradient(height, width), "jpeg")
        for _ in range(6):
            extent = random.integers((32, 32), (height, width), endpoint=True)
            corner = random.integers((0, 0), (height, width) - extent, endpoint=True)
            found = decode_for((2, 2), content, (*corner, *extent))
            assert found.shape[:2] == tuple((extent + 4) // 8)


def test_an_image_of_64_pixels_is_decoded_in_full_as_it_is_held_in_memory():
    for side, is_equal in ((64, True), (65, False)):
        content = encode(gradient(side, side) ^ np.uint8(85), "jpeg")
        whole, found = (decode_for(target, content, (0, 0, side, side)) for target in (None, (8, 8)))
        assert np.array_equal(whole, found) is is_equal


def test_an_image_that_is_decoded_smaller_loses_no_detail():
    photograph = load_sample_image("china.jpg")
    content, window = encode(photograph, "jpeg", quality=95), (8, 0, 416, 640)
    for target in [(32, 48), (52, 80), (104, 160)]:
        whole, reduced = (views.resize(decode_for(size, content, window), target).numpy() for size in (None, target))
        difference = np.abs(whole - reduced)
        assert 0 < difference.mean() < 1 and difference.max() < 16  # of 255


def on_white(colours, opacity):
    share = opacity[..., None] / 255
    return colours * share + 255 * (1 - share)


# Each with the pixels that it has to become.
KINDS = {
    "alpha": (encode(np.dstack([PIXELS, GREY])), on_white(PIXELS, GREY)),
    "grey": (encode(GREY), np.repeat(GREY[..., None], 3, -1)),
    "grey and opaque": (encode(Image.fromarray(PIXELS).convert("LA")), np.repeat(GREY[..., None], 3, -1)),
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
    np.testing.assert_allclose(decode(content, WINDOW), cropped(expected), rtol=1e-6)


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


@pytest.mark.parametrize("content", [b"", b"no image", encode(PIXELS, "ppm"), encode(PIXELS)[:100]])
def test_what_cannot_be_decoded_raises(content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(content)


@pytest.mark.parametrize("kind", GOOD)
def test_a_folder_takes_every_kind_that_is_read_and_it_looks_as_in_pillow(tmp_path, kind):
    assert not problem_of(write(tmp_path / "image.jpg", GOOD[kind]), Reading())
    # Pillow rounds what it makes of opacity, and cuts 16 bits off to 8: of a colour, and of its opacity.
    has_opacity = any(word in kind for word in ("colour 4", "colour 6", "V4", "V5, red"))
    is_deep = kind.startswith("PNG") and "16 bits" in kind
    expected = pillow_pixels(GOOD[kind])
    if kind.startswith(("PNG, colour 0, 4 bits", "PNG, colour 2, 16 bits")) and kind.endswith("transparent colour"):
        pixels = tf.io.decode_png(GOOD[kind], channels=4).numpy()  # by libpng: Pillow does not find the colour
        assert (expected[0, 0] != 255).any() and not pixels[0, 0, 3]
        expected = np.where(pixels[..., 3:] == 0, 255, pixels[..., :3]).astype("float32")
    difference = np.abs(decode(GOOD[kind]) - expected)
    assert difference.max() <= 0.6 * has_opacity + 1.0 * is_deep


@pytest.mark.parametrize("kind", REFUSED)
def test_a_folder_skips_every_kind_that_is_not_read_and_tells_why(tmp_path, kind):
    content, problem = REFUSED[kind]
    assert problem_of(write(tmp_path / "image.jpg", content), Reading()) == problem
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(content)


def test_images_decoded_outside_of_a_graph_are_decoded_without_a_warning(caplog):
    tf.get_logger().addHandler(caplog.handler)
    try:
        for number in range(8):  # TensorFlow warns of functions that are traced again and again
            for content in (encode(gradient(9 + number, 8), "gif"), encode(gradient(9 + number, 8), "jpeg")):
                assert decode(content).shape == (9 + number, 8, 3)
    finally:
        tf.get_logger().removeHandler(caplog.handler)
    assert caplog.records == []


def test_the_pixels_of_bmp_are_those_that_were_written():
    for kind, content in GOOD.items():
        if kind.startswith(("BMP, 24", "BMP, 32", "DIB")) and not kind.endswith(("V4", "red first")):  # opaque
            np.testing.assert_array_equal(decode(content), image_kinds.PIXELS, err_msg=kind)
        if kind.startswith("BMP, 16"):
            assert np.abs(decode(content).astype(int) - image_kinds.PIXELS).max() < 8, kind  # 5 bits are left


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_image_of_one_pixel_looks_as_in_pillow(kind):
    content = encode(Image.fromarray(PIXELS[:1, :1]), kind)
    np.testing.assert_array_equal(decode(content), pillow(content))


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_not_rounded(channels):
    values = np.random.default_rng(0).integers(0, 2**16, (6, 7), dtype=np.uint16)
    content = encode(Image.fromarray(values))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), values)
    expected = np.repeat(values[..., None] / 257, channels, axis=-1)
    np.testing.assert_allclose(decode(content, channels=channels), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3)])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_image_of_one_pixel_or_one_row_is_read_in_training_and_evaluation(size, kind):
    """Where all of it has one colour, every window of it has."""
    pixels = Image.fromarray(np.full((*size, 3), (250, 130, 10), np.uint8))
    content = tf.constant(encode(pixels, kind, quality=95))
    prepare = Preprocessing(8, 3, (0.0,) * 3, (1.0,) * 3, evaluation_crop=0.875, crop_scale=(0.2, 1.0), flip=True)
    views = [prepare.for_training(content, tf.constant((0, i), tf.int64)) for i in range(3)]
    for image in [*views, prepare.for_evaluation(content)]:
        np.testing.assert_allclose(image, np.full((8, 8, 3), (250, 130, 10)) / 255, atol=0.02)
