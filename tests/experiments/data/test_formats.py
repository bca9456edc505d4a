"""Files of every format, depth and number of channels, in numbers beside Pillow, tifffile or what was written."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image, ImageOps

from experiments.config import DataConfig
from experiments.data.decoding import decode_and_crop, problem_of
from experiments.data.preprocessing import Preprocessing
from experiments.data.values import Reading
from tests.experiments.image_kinds import jpeg, without_segment
from tests.experiments.images import encode, gradient, write

HEIGHT, WIDTH = 21, 34
RNG = np.random.default_rng(0)
TYPES = {"uint8": 255, "uint16": 65535, "uint32": 2**32 - 1, "float16": 1, "float32": 1, "float64": 1}
ORIENTATION = 0x112
PIXELS = gradient(HEIGHT, WIDTH)
TINT = (0.25, 0.5, 1.0)


def noise(channels, dtype):
    values = RNG.random((HEIGHT, WIDTH, channels))
    return values.astype(dtype) if dtype.startswith("float") else (values * TYPES[dtype]).astype(dtype)


def npy(pixels):
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def tiff(pixels, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **{"photometric": "minisblack", **options})
    return file.getvalue()


def deep_png(pixels):
    return tf.io.encode_png(pixels).numpy()


def decode(content, **options):
    reading = Reading(**options)
    return decode_and_crop(tf.constant(content), lambda size: tf.concat([[0, 0], size], 0), reading).numpy()


def decode_both_ways(content, **options):
    """Decodes in the graph and by itself, and within a window; all three have to agree."""
    whole = decode(content, **options)
    np.testing.assert_array_equal(np.clip(Reading(**options).values(content).round(3), 0, 255), whole.round(3))
    window = tf.constant((3, 5, 11, 13))
    part = decode_and_crop(tf.constant(content), lambda _: window, Reading(**options)).numpy()
    np.testing.assert_array_equal(part, whole[3:14, 5:18])
    return whole


def lossless():
    """Returns `{name: (content, pixels as written)}`."""
    files = {}
    for dtype in TYPES:
        for channels in (1, 2, 3, 5, 12):
            pixels = noise(channels, dtype)
            files[f"npy, {dtype}, {channels}"] = npy(pixels), pixels
            if dtype == "float64":
                continue
            if channels == 1:
                files[f"TIFF, {dtype}, 1"] = tiff(pixels[..., 0]), pixels
            else:
                files[f"TIFF, {dtype}, {channels}"] = tiff(pixels, planarconfig="contig"), pixels
                planes = np.moveaxis(pixels, -1, 0)
                files[f"TIFF, {dtype}, {channels}, planar"] = tiff(planes, planarconfig="separate"), pixels
        files[f"npy, {dtype}, flat"] = npy(noise(1, dtype)[..., 0].copy()), None
    for name, options in {
        "LZW": {"compression": "lzw"},
        "deflate": {"compression": "zlib", "predictor": True},
        "zstd": {"compression": "zstd"},
        "tiles": {"tile": (16, 16)},
        "big": {"bigtiff": True},
        "big-endian": {"byteorder": ">"},
    }.items():
        for dtype in ("uint16", "float32"):
            pixels = noise(5, dtype)
            files[f"TIFF, {dtype}, {name}"] = tiff(pixels, planarconfig="contig", **options), pixels
    for channels in (1, 3):
        pixels = noise(channels, "uint16")
        files[f"PNG, uint16, {channels}"] = deep_png(pixels), pixels
        files[f"JPEG 2000, uint16, {channels}"] = imagecodecs.jpeg2k_encode(np.squeeze(pixels), level=0), pixels
        pixels = noise(channels, "uint8")
        for kind in ("png", "bmp", "tiff", "jpeg2000"):
            options = {"irreversible": False} if kind == "jpeg2000" else {}
            files[f"{kind}, uint8, {channels}"] = encode(pixels, kind, **options), pixels
    pixels = noise(3, "uint8")
    files["webp, uint8, lossless"] = encode(pixels, "webp", lossless=True), pixels
    pixels = noise(5, "uint16")
    files["JPEG 2000, uint16, 5"] = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k"), pixels
    return {name: (content, pixels) for name, (content, pixels) in files.items() if pixels is not None}


LOSSLESS = lossless()


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_files_are_read_as_they_were_written(tmp_path, kind):
    content, pixels = LOSSLESS[kind]
    largest = TYPES[str(pixels.dtype)]
    options = {"channels": pixels.shape[-1]}
    assert not problem_of(write(tmp_path / "x", content), Reading(**options))
    expected = pixels.astype("float64") * 255 / largest
    np.testing.assert_allclose(decode_both_ways(content, **options), expected, rtol=2e-7, atol=1e-7)


LOSSY = {
    "jpeg": encode(PIXELS, "jpeg", quality=90),
    "webp": encode(PIXELS, "webp", quality=80),
    "webp, grey": encode(PIXELS[..., 0], "webp", quality=80),
    "avif": encode(PIXELS, "avif", quality=80),
    "jpeg2000": encode(PIXELS, "jpeg2000", quality_layers=[20], irreversible=True),
    "tiff, JPEG": encode(PIXELS, "tiff", compression="jpeg"),
    "gif": encode(Image.fromarray(PIXELS).quantize(64), "gif"),
    "bmp, palette": encode(Image.fromarray(PIXELS).quantize(64), "bmp"),
    "tiff, palette": encode(Image.fromarray(PIXELS).quantize(64), "tiff"),
    "tiff, CMYK": encode(PIXELS, "tiff", mode="CMYK"),
    "tiff, one bit": encode(PIXELS[..., 0], "tiff", mode="1"),
    "tiff, YCbCr": encode(PIXELS, "tiff", mode="YCbCr"),
    "png, palette": encode(Image.fromarray(PIXELS).quantize(64)),
}


@pytest.mark.parametrize("kind", LOSSY)
def test_other_files_look_as_in_pillow(tmp_path, kind):
    assert not problem_of(write(tmp_path / "x", LOSSY[kind]), Reading())
    expected = np.asarray(Image.open(io.BytesIO(LOSSY[kind])).convert("RGB"))
    np.testing.assert_array_equal(decode(LOSSY[kind]), expected)


@pytest.mark.parametrize("bits", [10, 12])
def test_avif_of_more_than_8_bits_is_not_cut_to_8(bits):
    white = 2**bits - 1
    values = np.linspace(0, white, HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3).astype(np.uint16)
    content = imagecodecs.avif_encode(values, bitspersample=bits, level=100)
    np.testing.assert_allclose(decode(content), imagecodecs.avif_decode(content) * (255 / white), rtol=1e-6)
    assert len(np.unique(decode(content))) > 300
    animated = imagecodecs.avif_encode(np.stack([values, values[::-1]]), bitspersample=bits, level=100)
    np.testing.assert_allclose(decode(animated), imagecodecs.avif_decode(animated)[0] * (255 / white), rtol=1e-6)


def test_jpeg_2000_of_12_bits_is_scaled_by_them_whatever_stands_before_its_codestream():
    pixels = RNG.integers(0, 4096, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    content = imagecodecs.jpeg2k_encode(pixels, bitspersample=12, level=0)
    at = content.index(b"jp2c") - 4
    box = content[:at] + (20).to_bytes(4, "big") + b"uuid" + b"\xff\x51" * 6 + content[at:]
    for file in (content, box):
        np.testing.assert_allclose(decode(file), pixels * (255 / 4095), rtol=1e-6)


# Inks: Pillow takes all JPEG files of four components for inverted, as Adobe's programs write them.
INKS = {
    "CMYK": jpeg("CMYK"),
    "CMYK without Adobe's segment": without_segment(jpeg("CMYK"), 0xEE),
    "YCCK": jpeg("CMYK").replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\2"),
}


@pytest.mark.parametrize("kind", INKS)
def test_inks_look_as_in_pillow(kind):
    expected = np.asarray(Image.open(io.BytesIO(INKS[kind])).convert("RGB"))
    np.testing.assert_array_equal(decode(INKS[kind]), expected)


def oriented(kind, orientation, **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encode(PIXELS, kind, exif=exif, **options)


def turned_tiff(orientation):
    return tiff(PIXELS, photometric="rgb", extratags=[(ORIENTATION, "H", 1, orientation, True)])


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="%d"/></x:xmpmeta>'
ORIENTED = {
    "jpeg": lambda i: oriented("jpeg", i, subsampling=0),
    "jpeg, XMP": lambda i: encode(PIXELS, "jpeg", subsampling=0, xmp=XMP % i),
    "webp": lambda i: oriented("webp", i),
    "webp, lossless": lambda i: oriented("webp", i, lossless=True),
    "png": lambda i: oriented("png", i),
    "avif": lambda i: oriented("avif", i),
    "tiff": turned_tiff,
    "tiff, XMP": lambda i: tiff(PIXELS, photometric="rgb", extratags=[(700, "B", None, XMP % i, True)]),
    "png, opacity": lambda i: oriented("png", i).replace(b"", b""),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ORIENTED)
def test_images_are_turned_upright_as_exif_transpose_does(kind, orientation):
    content = ORIENTED[kind](orientation)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
    np.testing.assert_array_equal(decode(content), expected)
    assert expected.shape == ((WIDTH, HEIGHT, 3) if orientation > 4 else (HEIGHT, WIDTH, 3))
    window = (2, 3, 8, 13)
    part = decode_and_crop(tf.constant(content), lambda _: tf.constant(window), Reading()).numpy()
    np.testing.assert_array_equal(part, expected[2:10, 3:16])


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    np.testing.assert_array_equal(decode(oriented("png", orientation)), PIXELS)


OPACITY = RNG.integers(0, 256, (HEIGHT, WIDTH, 1), dtype=np.uint8)
TRANSPARENT = {
    "png": encode(np.dstack([PIXELS, OPACITY])),
    "webp": encode(np.dstack([PIXELS, OPACITY]), "webp", lossless=True, exact=True),
    "tiff": tiff(np.dstack([PIXELS, OPACITY]), photometric="rgb", extrasamples=["unassalpha"]),
    "jpeg2000": encode(np.dstack([PIXELS, OPACITY]), "jpeg2000", irreversible=False),
    "png, 16 bits": deep_png(np.dstack([PIXELS, OPACITY]).astype(np.uint16) * 257),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
@pytest.mark.parametrize("background", [(1.0,), (0.0,), TINT])
def test_what_is_transparent_shows_the_background(kind, background):
    share = OPACITY / 255.0
    expected = PIXELS * share + 255.0 * np.array(background) * (1 - share)
    np.testing.assert_allclose(decode(TRANSPARENT[kind], background=background), expected, atol=1e-4)
    if background == (1.0,) and kind == "png":
        image = Image.fromarray(np.dstack([PIXELS, OPACITY]))
        white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        assert np.abs(decode(TRANSPARENT[kind]) - np.asarray(white)).max() <= 0.6  # Pillow rounds


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_grey_of_a_png_is_one_of_its_own_depth(bits):
    white, seen = 2**bits - 1, 1
    grey = RNG.integers(0, white + 1, (HEIGHT, WIDTH), dtype=np.uint8)
    rows = np.unpackbits(grey[..., np.newaxis], axis=2)[..., 8 - bits :].reshape(HEIGHT, -1)
    lines = b"".join(b"\0" + np.packbits(row).tobytes() for row in rows)
    head = struct.pack(">2I5B", WIDTH, HEIGHT, bits, 0, 0, 0, 0)
    chunks = (b"IHDR", head), (b"tRNS", struct.pack(">H", seen)), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big") for name, data in chunks
    )
    expected = np.where(grey == seen, 255.0, grey * (255 / white))[..., np.newaxis]
    np.testing.assert_allclose(decode(content), np.repeat(expected, 3, axis=-1), atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_premultiplied_colours_are_divided_by_their_alpha(dtype):
    white = TYPES[dtype]
    colours = RNG.random((HEIGHT, WIDTH, 3)) * white
    opacity = (0.2 + 0.8 * RNG.random((HEIGHT, WIDTH, 1))) * white
    stored = np.concatenate([colours * (opacity / white), opacity], axis=-1)
    stored = stored.astype(dtype) if dtype == "float32" else stored.round().astype(dtype)
    content = tiff(stored, photometric="rgb", extrasamples=["assocalpha"])
    # Composing on black gives the premultiplied colours again; both roundings are of the file's own steps.
    step = 0.0 if dtype == "float32" else 255 / white
    np.testing.assert_allclose(
        decode(content, background=(0.0,)), stored[..., :3] * (255 / white), atol=0.6 * step + 1e-4
    )


def test_premultiplied_floating_point_has_any_range():
    colours = RNG.random((HEIGHT, WIDTH, 3)).astype("float32") * 5000
    stored = np.concatenate([colours * 0.5, np.full((HEIGHT, WIDTH, 1), 0.5, "float32")], axis=-1)
    content = tiff(stored, photometric="rgb", extrasamples=["assocalpha"])
    found = decode(content, value_range=(0.0, 5000.0), background=(0.0,))
    np.testing.assert_allclose(found, stored[..., :3] * (255 / 5000), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_where_white_is_zero_colours_are_inverted_and_alpha_is_not(dtype):
    grey, opacity = noise(1, dtype), noise(1, dtype)
    white = TYPES[dtype]
    plain = decode(tiff(grey[..., 0], photometric="miniswhite"), channels=1)
    np.testing.assert_allclose(plain, 255 - grey.astype("float64") * (255 / white), atol=1e-4)
    content = tiff(
        np.dstack([grey, opacity]), photometric="miniswhite", planarconfig="contig", extrasamples=["unassalpha"]
    )
    found = decode(content, channels=1, background=(0.0,))
    np.testing.assert_allclose(found, plain * (opacity / white), atol=1e-4)


def test_opacity_is_a_channel_where_it_is_asked_for():
    pixels = np.dstack([PIXELS, OPACITY])
    np.testing.assert_array_equal(decode(TRANSPARENT["png"], channels=4), pixels)
    np.testing.assert_array_equal(decode(TRANSPARENT["png"], channels=2, bands=(4, 1)), pixels[..., [3, 0]])


def test_a_transparent_colour_of_a_palette_shows_the_background():
    image = Image.fromarray(PIXELS).quantize(16)
    content = encode(image, "gif", transparency=3)
    expected = np.where((np.asarray(image) == 3)[..., np.newaxis], 255, np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(decode(content), expected)


def test_bands_are_chosen_in_their_order_and_counted_from_1():
    pixels = noise(6, "uint16")
    for content in (npy(pixels), tiff(pixels, planarconfig="contig")):
        chosen = decode(content, channels=3, bands=(4, 3, 2))
        np.testing.assert_allclose(chosen, pixels[..., [3, 2, 1]] / 257, rtol=1e-6)


def test_all_pages_of_a_tiff_are_channels_where_that_is_asked_for():
    pages = np.moveaxis(noise(4, "uint16"), -1, 0)
    content = tiff(pages)
    np.testing.assert_allclose(decode(content, channels=1), pages[0, ..., np.newaxis] / 257, rtol=1e-6)
    every = decode(content, channels=4, pages="all")
    np.testing.assert_allclose(every, np.moveaxis(pages, 0, -1) / 257, rtol=1e-6)


def test_the_pages_of_all_series_of_a_microscope_are_channels(tmp_path):
    def written(*stacks):
        with tifffile.TiffWriter(tmp_path / "x.ome.tif", ome=True) as writer:
            for stack in stacks:
                writer.write(stack, photometric="minisblack")
        return (tmp_path / "x.ome.tif").read_bytes()

    pages = np.moveaxis(noise(5, "uint16"), -1, 0)
    every = decode(written(pages[:3], pages[3:]), channels=5, pages="all")
    np.testing.assert_allclose(every, np.moveaxis(pages, 0, -1) / 257, rtol=1e-6)
    smaller = write(tmp_path / "y", written(pages[:3], pages[3:, ::2, ::2]))
    assert "its pages differ in size" in problem_of(smaller, Reading(5, pages="all"))


def test_pages_that_are_stored_differently_are_all_read_and_pages_that_differ_are_refused(tmp_path):
    pages = np.moveaxis(noise(2, "uint16"), -1, 0)

    def written(second, **options):
        file = io.BytesIO()
        with tifffile.TiffWriter(file) as writer:
            writer.write(pages[0], photometric="minisblack")
            writer.write(second, photometric="minisblack", **options)
        return file.getvalue()

    every = decode(written(pages[1], compression="zlib"), channels=2, pages="all")
    np.testing.assert_allclose(every, np.moveaxis(pages, 0, -1) / 257, rtol=1e-6)
    overview = decode(written(pages[1][::2, ::2], subfiletype=1), channels=1, pages="all")
    np.testing.assert_allclose(overview, pages[0, ..., np.newaxis] / 257, rtol=1e-6)
    file = write(tmp_path / "x", written(pages[1][:-1]))
    assert problem_of(file, Reading(2, pages="all")) == (
        "its pages differ in size, type or channels: data.pages=first reads the first"
    )
    palette = encode(
        Image.fromarray(PIXELS).quantize(64), "tiff", save_all=True, append_images=[Image.fromarray(PIXELS)]
    )
    assert "of several pages with a palette" in problem_of(write(tmp_path / "y", palette), Reading(6, pages="all"))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_a_value_range_takes_the_place_of_that_of_the_type(dtype):
    pixels = (RNG.random((HEIGHT, WIDTH, 5)) * 3000).astype(dtype)
    values = decode(npy(pixels), channels=5, value_range=(0.0, 3000.0))
    np.testing.assert_allclose(values, pixels.astype("float64") * 255 / 3000, rtol=1e-6)
    narrow = decode(npy(pixels), channels=5, value_range=(1000.0, 2000.0))
    np.testing.assert_allclose(narrow, (pixels.astype("float64") - 1000).clip(0, 1000) * 0.255, rtol=1e-5, atol=1e-4)


def test_16_bits_reach_the_model_unrounded():
    """All of 4,096 steps of a ramp that 8 bits would make 16 of are there behind the normalization."""
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for content in (tiff(ramp), npy(ramp), deep_png(ramp[..., np.newaxis])):
        image = Preprocessing(64, 1, (0.0,), (1.0,)).for_evaluation(tf.constant(content)).numpy()
        np.testing.assert_allclose(image[..., 0], ramp / 65535, rtol=2e-6, atol=1e-9)


def test_pixels_without_data_are_nan_and_bleed_into_no_other():
    pixels = np.full((40, 40, 2), 1000.0, np.float32)
    pixels[:20, :, 0], pixels[10:30, 10:30, 1] = np.nan, -9999.0
    options = {"channels": 2, "no_data": (-9999.0,), "value_range": (0.0, 2000.0)}
    whole = decode(npy(pixels), **options)
    np.testing.assert_array_equal(np.isnan(whole), np.isnan(pixels) | (pixels == -9999))
    prepare = Preprocessing(20, 2, (0.0, 0.0), (1.0, 1.0), reading=Reading(**options))
    image = prepare.for_evaluation(tf.constant(npy(pixels))).numpy()
    assert np.isnan(image[:10, :, 0]).all() and not np.isnan(image[10:, :, 0]).any()
    assert np.isnan(image[5:15, 5:15, 1]).all() and np.isnan(image[..., 1]).sum() == 100
    np.testing.assert_allclose(image[np.isfinite(image)], 0.5, rtol=1e-5)


PROBLEMS = [
    (npy(noise(5, "uint16")), {}, "it has 5 channels, and the model takes 3; for training, data.channels sets that"),
    (npy(noise(5, "uint16")), {"bands": (3, 2, 7)}, "it has 5 channels, and data.bands asks for number 7"),
    (
        tiff(np.zeros((3, 4, HEIGHT, WIDTH), np.uint8)),
        {"channels": 5, "pages": "all"},
        "it has 12 channels, and the model takes 5",
    ),
    (
        npy(np.zeros((2, 2, 2, 2))),
        {},
        "not an array of numbers with shape (height, width) or (height, width, channels)",
    ),
    (
        npy(np.array([["a", "b"]])),
        {},
        "not an array of numbers with shape (height, width) or (height, width, channels)",
    ),
    (npy(np.array([[None]], object)), {}, "not an array of numbers with"),
    (npy(np.zeros((0, 5, 3))), {}, "an image without pixels"),
    (npy(np.zeros((4, 5, 0))), {}, "an image without pixels"),
    (encode(PIXELS, "webp")[:-9], {}, "the file is truncated"),
    (npy(noise(3, "uint8"))[:-1], {}, "the file is truncated"),
    (npy(np.zeros((1, 1, 5), np.uint8)), {"max_pixels": 1, "channels": 5}, "more than 1 pixels (data.max_pixels)"),
    (npy(noise(3, "uint8"))[:60], {}, "a damaged NPY file, or one of a kind that cannot be decoded here"),
    (b"\0\0\0\x1cftypheic" + bytes(40), {}, "HEIC needs a package that is not installed: pip install pillow-heif"),
]


@pytest.mark.parametrize(("content", "options", "problem"), PROBLEMS)
def test_what_does_not_fit_is_skipped_by_a_folder_and_not_decoded(tmp_path, content, options, problem):
    assert problem_of(write(tmp_path / "x", content), Reading(**options)).startswith(problem)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(content, **options)


def test_a_damaged_tag_of_a_tiff_is_not_warned_of(tmp_path, caplog):
    content = tiff(noise(3, "uint8"), photometric="rgb", resolution=(72, 72))
    tag = content.index((282).to_bytes(2, "little"))
    content = content[: tag + 8] + b"\xff\xff\xff\x7f" + content[tag + 12 :]  # the place of the resolution
    assert not problem_of(write(tmp_path / "x.tif", content), Reading()) and not caplog.records


@pytest.mark.parametrize("value", [np.nan, 1.5, -0.5])
def test_floating_point_outside_of_its_range_is_not_decoded(value):
    pixels = noise(3, "float32")
    pixels[3, 4, 1] = value
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(npy(pixels))


@pytest.mark.parametrize("value", [np.nan, 255.0, -0.5])
def test_alpha_outside_of_its_range_is_not_decoded(value):
    pixels = noise(4, "float32")
    pixels[3, 4, 3] = value
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(tiff(pixels, photometric="rgb", extrasamples=["unassalpha"]))


def test_nothing_in_an_array_file_is_run():
    content = npy(np.array([[print]], object))
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(content)


def test_the_fields_of_the_configuration_reach_the_reading():
    data = DataConfig(channels=2, bands=(2, 1), mean="auto", value_range=(0, 9), no_data=("nan",), background=(0.5,))
    assert Reading.of(data) == Reading(2, (2, 1), (0.0, 9.0), ("nan",), (0.5,), "first", data.max_pixels)
