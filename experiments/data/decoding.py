"""Image files in the graph of a data set: which files are read, and how their bytes become pixels.

`problem_of`, which selects the files of a folder, and `decode_and_crop`, which decodes them for batches, follow the
table of `experiments.data.formats`. TensorFlow decodes the files that it reads exactly: JPEG, PNG and WebP of 8 bits
without an alpha channel; all others are decoded through NumPy, see `experiments.data.values`.
"""

import functools
import io
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from experiments.data.cache import SMALL
from experiments.data.files import memoized
from experiments.data.formats import (
    SUFFIXES,
    TRUNCATED,
    UnreadableError,
    format_of,
    header_of,
    orientation_of,
    read_header,
    turns,
)
from experiments.data.values import Reading

# Formats that cannot be read: such files are counted and named, not skipped silently.
OTHER_SUFFIXES = (
    *(".jxl", ".jxr", ".psd", ".xcf", ".tga", ".pcx", ".qoi", ".exr", ".hdr", ".dds", ".eps", ".svg"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".cur", ".icns", ".fits", ".nii", ".dcm", ".svs", ".ndpi", ".czi"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".3fr", ".mrw"),
)  # fmt: skip
PNG_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
PNG_COLOURS = (0, 2, 3)  # colour types without an alpha channel: grey, RGB, palette
PNG_NOTES = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}  # chunks that may hold an orientation
PNG_METHODS = (b"\0\0\0", b"\0\0\1")  # compression, filter, interlacing
PNG_END = b"\xaeB`\x82"  # the checksum of IEND
DAMAGED = "a damaged {} file, or one of a kind that cannot be decoded here"
READ_WHOLE, LARGEST_FILE = ("JPEG", "JPEG 2000", "AVIF", "HEIC"), 2**30  # bytes, when a folder is opened
LOADED = ("BMP", "DIB", "GIF")  # decoded when a folder is opened: many variants of these formats cannot be read
RATIOS = (1, 2, 4, 8)  # by which libjpeg can reduce the size of a JPEG while decoding
GENERAL, BY_TENSORFLOW = 0, ("JPEG", "PNG", "WEBP")
ORIENTATIONS = 16  # a way of decoding is a format's number times this, plus the orientation
# Whether rows and columns are swapped, and whether the result is flipped vertically and horizontally.
TURNS = np.array([turns(i) for i in range(ORIENTATIONS)])


def is_image_name(name: str) -> bool:
    """Whether a file name has the suffix of an image, whether or not its format can be read."""
    return name.lower().endswith(SUFFIXES + OTHER_SUFFIXES) and not name.startswith(".")


def problem_of(path: pathlib.Path, reading: Reading) -> str:
    """Returns why a file cannot be used, or an empty string.

    Most files are not decoded here; damage inside a file shows when it is read in training, where it counts as
    unreadable.

    Args:
        path: of the file, a `pathlib.Path`.
        reading: the `Reading`.
    """
    # These raise no error, whatever the path; opening a pipe would block.
    if os.path.exists(path) and not os.path.isfile(path):
        return "not a file"
    try:
        name = format_of(_part(path, 0, 32))
        if not name:
            return _problem_of_unknown(path)
        if name in READ_WHOLE and path.stat().st_size > LARGEST_FILE:
            return f"a {name} file of more than {LARGEST_FILE:,} bytes"
        if name in ("JPEG", "PNG"):
            with Image.open(path, formats=("JPEG", "PNG")) as image:
                reading.check(header_of(image))
                return _problem_of_jpeg(image, path) if name == "JPEG" else _problem_of_png(image, path)
        if name == "WEBP" and path.stat().st_size < int.from_bytes(_part(path, 4, 4), "little") + 8:
            return TRUNCATED
        with open(path, "rb") as file:
            _, header, decode = read_header(file, reading.pages)
            reading.check(header)
            if name in LOADED:
                decode()
        return ""
    except UnreadableError as error:
        return str(error)
    except Image.DecompressionBombError:
        return f"more than {reading.max_pixels:,} pixels (data.max_pixels)"
    except Exception as error:  # a damaged file can make the libraries raise anything
        if not os.access(path, os.R_OK):
            return "the file cannot be opened"
        if isinstance(error, OSError) and "truncated" in str(error):
            return TRUNCATED
        return DAMAGED.format(format_of(_part(path, 0, 32)))


def decode_and_crop(
    encoded: tf.Tensor,
    choose_window: Callable[[tf.Tensor], tf.Tensor],
    reading: Reading,
    finish: Callable[[tf.Tensor], tf.Tensor] = lambda image: tf.cast(image, tf.float32),
    target: tuple[int, int] | None = None,
) -> tf.Tensor:
    """Decodes the part of an image that is needed, upright.

    For a JPEG, only the blocks under the window are decoded, with Pillow's arithmetic. CMYK is converted to RGB,
    palettes are looked up, transparent pixels show `reading.background`, and the first frame of an animation is used.

    Args:
        encoded: scalar string tensor, the bytes of an image file.
        choose_window: function from `(height, width)`, an int32 tensor, to `(top, left, height, width)`.
        reading: the `Reading`.
        finish: function of the window, `(h, w, channels)` uint8 or float32 in [0, 255], to float32.
        target: `(height, width)` that `finish` resizes the window to. With a target, a JPEG is decoded at 1/2, 1/4 or
            1/8 of its size if the window is then still at least twice the target size, and it has more than 64 pixels a
            side: smaller ones are held in memory, decoded in full. The window is rounded to whole pixels at that size,
            by less than a quarter of a pixel of the target. None decodes all pixels.

    Returns:
        The result of `finish`.

    Raises:
        InvalidArgumentError: when it is run, if the file cannot be read.
    """

    def general() -> tf.Tensor:
        image = tf.numpy_function(lambda content: _values(content, reading), [encoded], tf.float32)
        image = tf.ensure_shape(image, (None, None, reading.channels))
        with tf.control_dependencies([tf.debugging.assert_positive(tf.size(image), "no image that can be read")]):
            window = choose_window(tf.shape(image)[:2])
        return finish(_cut(image, window))

    def of_8_bits() -> tf.Tensor:
        kind = way // ORIENTATIONS - 1
        size = tf.switch_case(kind, [size_of_jpeg, size_of_png, size_of_webp])
        with tf.control_dependencies([_check_size(size, reading.max_pixels)]):
            size, content = tf.ensure_shape(size, (2,)), tf.identity(encoded)  # decoded once its size is known
        turn = tf.unstack(tf.gather(TURNS, way % ORIENTATIONS))
        window = _window_in_file(choose_window, size, *turn)
        decoders = [
            lambda: decode_jpeg(size, window, turn[0]),
            lambda: _cut(tf.io.decode_png(content, channels=3), window),
            lambda: _cut(tf.io.decode_webp(content)[0, ..., :3], window),
        ]
        image = tf.ensure_shape(tf.switch_case(kind, decoders), (None, None, 3))
        image = tf.cond(tf.reduce_any(turn), lambda: _turned_back(image, *turn), lambda: image)
        return finish(tf.image.rgb_to_grayscale(image) if reading.channels == 1 else image)

    def size_of_jpeg() -> tf.Tensor:
        return tf.io.extract_jpeg_shape(encoded)[:2]

    def size_of_png() -> tf.Tensor:
        return tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)[::-1]

    def size_of_webp() -> tf.Tensor:
        size = tf.io.decode_raw(tf.strings.substr(encoded, 26, 4), tf.uint16)[::-1]
        return tf.bitwise.bitwise_and(tf.cast(size, tf.int32), 0x3FFF)

    def decode_jpeg(size: tf.Tensor, window: tf.Tensor, swaps: tf.Tensor) -> tf.Tensor:
        def decode(ratio: int = 1) -> tf.Tensor:
            reduced = _reduced(window, ratio, size) if ratio > 1 else window
            return tf.io.decode_and_crop_jpeg(encoded, reduced, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

        if not target:
            return decode()
        least = 2 * tf.constant(target)
        least = tf.where(swaps, least[::-1], least)
        fitting = [tf.reduce_all(window[2:] >= ratio * least) & (tf.reduce_max(size) > SMALL) for ratio in RATIOS[1:]]
        branches = [functools.partial(decode, ratio) for ratio in RATIOS]
        return tf.switch_case(tf.reduce_sum(tf.cast(fitting, tf.int32)), branches)

    if not tf.executing_eagerly():  # in a graph, a branch in a function of its own costs nothing where it is not taken
        general = tf.function(general, autograph=False, experimental_attributes={"_noinline": True})
    if not reading.is_plain:
        return general()
    way = tf.cast(memoized(_way_of_decoding, encoded, encoded), tf.int32)
    return tf.cond(way == GENERAL, general, of_8_bits)


def _way_of_decoding(content: bytes | np.ndarray) -> np.int64:
    """Returns `GENERAL` or, for a file that TensorFlow reads exactly, the number of the format and the orientation."""
    content = cast(bytes, np.asarray(content, object).item())  # bytes in a graph, an array of them outside
    name, orientation = format_of(content[:32]), 1
    is_exact = name in ("JPEG", "PNG")
    try:
        if name == "JPEG":
            with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
                is_exact = image.mode in ("L", "RGB")
                orientation = orientation_of(image)
        elif name == "PNG":
            chunks = set(_png_chunks(content))
            is_exact = content[24] <= 8 and content[25] in PNG_COLOURS and b"tRNS" not in chunks
            if chunks & PNG_NOTES:
                with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
                    image.load()  # these chunks may follow the pixels
                    orientation = orientation_of(image)
        elif name == "WEBP":
            is_exact = content[12:16] == b"VP8 " and hasattr(tf.io, "decode_webp")
    except Exception:  # the decoder reports the damage, if it matters
        pass
    return np.int64((BY_TENSORFLOW.index(name) + 1) * ORIENTATIONS + orientation if is_exact else GENERAL)


def _png_chunks(content: bytes) -> Iterator[bytes]:
    """Yields the names of the chunks of a PNG, as far as they are names."""
    at = 8
    while (name := content[at + 4 : at + 8]).isalpha():
        yield name
        at += 12 + int.from_bytes(content[at : at + 4])


def _cut(image: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    top, left, height, width = tf.unstack(window)
    return image[top : top + height, left : left + width]


def _reduced(window: tf.Tensor, ratio: int, size: tf.Tensor) -> tf.Tensor:
    """Returns the window of an image that is decoded at `1 / ratio` of its size, which is rounded up."""
    window = (window + ratio // 2) // ratio
    corner = tf.minimum(window[:2], -(-size // ratio) - window[2:])
    return tf.concat([corner, window[2:]], axis=0)


def _window_in_file(
    choose_window: Callable[[tf.Tensor], tf.Tensor],
    size: tf.Tensor,
    swaps: tf.Tensor,
    down: tf.Tensor,
    right: tf.Tensor,
) -> tf.Tensor:
    """Returns the position of a window of the upright image in the stored image, which is rotated or mirrored."""
    size = tf.where(swaps, size[::-1], size)
    top, left, height, width = tf.unstack(choose_window(size))
    top = tf.where(down, size[0] - top - height, top)
    left = tf.where(right, size[1] - left - width, left)
    return tf.where(swaps, [left, top, width, height], [top, left, height, width])


def _turned_back(image: tf.Tensor, swaps: tf.Tensor, down: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    image = tf.cond(swaps, lambda: _transpose(image), lambda: image)
    return tf.reverse(image, tf.where(tf.stack([down, right]))[:, 0])


def _transpose(image: tf.Tensor) -> tf.Tensor:
    """`(H, W, C)` to `(W, H, C)`, by a gather: oneDNN writes to stderr when it transposes uint8."""
    height, width, channels = tf.unstack(tf.shape(image))
    pixels = tf.range(width)[:, tf.newaxis] + width * tf.range(height)
    return tf.gather(tf.reshape(image, (height * width, channels)), pixels)


def _values(content: bytes | np.ndarray, reading: Reading) -> np.ndarray:
    """Returns `(H, W, channels)`, with no pixels on failure: TensorFlow would log an exception at length."""
    try:
        return reading.values(np.asarray(content, object).item())
    except Exception:  # whatever the damage leads the libraries to
        return np.zeros((0, 0, reading.channels), np.float32)


def _check_size(size: tf.Tensor, max_pixels: int) -> tf.Operation | None:
    """Returns the operation that raises InvalidArgumentError for an image of more than `max_pixels`."""
    # A PNG may declare sides above 2^31, negative as int32.
    pixels = tf.reduce_prod(tf.abs(tf.cast(size, tf.int64)))
    return tf.debugging.assert_less_equal(pixels, tf.constant(max_pixels, tf.int64), "too many pixels")


def _problem_of_jpeg(image: Image.Image, path: pathlib.Path) -> str:
    if not image.quantization:  # type: ignore[attr-defined]  # no quantization tables, as in lossless JPEG
        return "lossless JPEG cannot be decoded here"
    if _part(path, -2, 2) != b"\xff\xd9":
        image.load()
        content = path.read_bytes()  # an end marker before the image data belongs to a thumbnail
        if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
            return TRUNCATED
    return ""


def _problem_of_png(image: Image.Image, path: pathlib.Path) -> str:
    """Finds faults in the chunks of a PNG that libpng rejects but Pillow accepts; the pixels are not decoded."""
    if image.mode == "P" and not image.palette:
        return "a PNG without its palette"
    found: set[bytes] = set()
    with open(path, "rb") as file:
        file.seek(8)
        while head := file.read(8):
            length, name = int.from_bytes(head[:4]), head[4:]
            content = file.read(length + 4) if name in (b"IHDR", b"IEND") else b""
            file.seek(length + 4 - len(content), os.SEEK_CUR)
            if not found and name != b"IHDR":
                return "PNG in Apple's variant cannot be decoded here"
            if not name.isalpha():  # the zeros of a file that was not written to its end, for instance
                return DAMAGED.format("PNG")
            if name == b"IEND" and content == PNG_END:
                return "" if b"IDAT" in found else DAMAGED.format("PNG")
            if name == b"IHDR" and content[10:13] not in PNG_METHODS:
                return DAMAGED.format("PNG")
            is_critical = name[:1].isupper()
            if is_critical and (name not in PNG_CHUNKS or (name in found and name != b"IDAT")):
                return DAMAGED.format("PNG")
            if length:
                found.add(name)
    return TRUNCATED


def _problem_of_unknown(path: pathlib.Path) -> str:
    """Describes a file whose format is not read."""
    if not _part(path, 0, 1):
        return "the file is empty"
    try:
        with Image.open(path) as image:
            return f"{image.format} is a format that cannot be decoded here"
    except UnidentifiedImageError:
        if path.suffix.lower() in OTHER_SUFFIXES:
            return f"{path.suffix[1:].upper()} is a format that cannot be decoded here"
    return "not an image"


def _part(path: pathlib.Path, start: int, size: int) -> bytes:
    """Returns some bytes of a file, counted from its end where `start` is negative."""
    with open(path, "rb") as file:
        file.seek(max(0, start + path.stat().st_size) if start < 0 else start)
        return file.read(size)
