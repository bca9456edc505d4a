"""Image files: which of them are read, and how their bytes become pixels.

`problem_of`, by which a folder chooses its files, and `decode_and_crop`, by which batches are made, follow one rule:
TensorFlow decodes JPEG and PNG, Pillow everything else in `FORMATS`. What a file is, its content says; its suffix only
says whether it is looked at.
"""

import io
import os

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError

from experiments.config import MAX_PIXELS

BY_TENSORFLOW = ("JPEG", "MPO", "PNG")  # Pillow's names. MPO: a JPEG with more pictures behind it, of many phones
BY_PILLOW = ("BMP", "DIB", "GIF")  # TensorFlow refuses or misreads half of the kinds of BMP, and some of GIF
FORMATS = BY_TENSORFLOW + BY_PILLOW
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".jfi",
    ".jif",
    ".pjpeg",
    ".pjp",
    ".mpo",
    ".png",
    ".apng",
    ".bmp",
    ".dib",
    ".gif",
)
# Of images that cannot be read: counted and named, not passed over in silence.
OTHER_SUFFIXES = (
    *(".webp", ".avif", ".avifs", ".heic", ".heics", ".heif", ".hif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".jxl", ".jxr", ".tif", ".tiff", ".psd", ".xcf", ".tga", ".pcx", ".qoi", ".exr", ".hdr", ".dds", ".eps", ".svg"),
    *(
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".ico",
        ".cur",
        ".icns",
        ".fits",
        ".npy",
        ".nii",
        ".dcm",
        ".svs",
        ".ndpi",
        ".czi",
    ),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".3fr", ".mrw"),
)
PNG_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
PNG_METHODS = (b"\0\0\0", b"\0\0\1")  # compression, filter, interlacing
PNG_END = b"\xaeB`\x82"  # the checksum of IEND
DAMAGED = "a {} that is damaged, or of a kind that cannot be decoded here"
MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n": "PNG", b"GIF8": "GIF", b"BM": "BMP"}


def is_image_name(name):
    """Whether a file is called like an image, of a format that is read or of another."""
    return name.lower().endswith(SUFFIXES + OTHER_SUFFIXES) and not name.startswith(".")


def problem_of(path, max_pixels):
    """Returns why a file cannot be used, or an empty string.

    Of what TensorFlow decodes, only a file without its format's end marker is decoded here; damage inside a file shows
    when it is read in training, where it counts as unreadable.

    Args:
        path: of the file, a `pathlib.Path`.
        max_pixels: largest number of pixels that an image may have.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        return "not a file"
    try:
        with Image.open(path) as image:
            return _problem_of_image(image, path, max_pixels)
    except Image.DecompressionBombError:
        return _too_many(max_pixels)
    except Exception as error:  # whatever the damage leads Pillow to
        if not os.access(path, os.R_OK):
            return "the file cannot be opened"
        if isinstance(error, OSError) and "truncated" in str(error):
            return "the file is cut short"
        return _problem_of_unknown(path, isinstance(error, UnidentifiedImageError))


def decode_and_crop(encoded, choose_window, channels, max_pixels=MAX_PIXELS):
    """Decodes the part of an image that is needed.

    Of a JPEG only the blocks under the window are decoded, with Pillow's arithmetic. CMYK becomes RGB, an alpha channel
    or a transparent colour is dropped, a palette looked up, of 16 bits the upper 8 count, of an animation the first
    picture. The format is told by the first bytes; a note in the file that it is to be shown turned is not heeded.

    Args:
        encoded: scalar string tensor, the bytes of a file of one of `FORMATS`.
        choose_window: function from `(height, width)`, an int32 tensor, to `(top, left, height, width)`.
        channels: 1 or 3.
        max_pixels: largest number of pixels that an image may have; a larger one is not decoded at all.

    Returns:
        `(h, w, channels)` uint8.

    Raises:
        InvalidArgumentError: when it is run, if the bytes are no such file, cut short, or of too many pixels.
    """

    def decode_jpeg():
        size = tf.io.extract_jpeg_shape(encoded)[:2]
        with tf.control_dependencies([_check_size(size, max_pixels)]):
            window = choose_window(size)
        return tf.io.decode_and_crop_jpeg(encoded, window, channels=3, dct_method="INTEGER_ACCURATE")

    def decode_png():
        sides = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
        with tf.control_dependencies([_check_size(sides, max_pixels)]):
            return crop(tf.io.decode_png(encoded, channels=3))

    def decode_other():
        image = tf.numpy_function(lambda content: _decode_by_pillow(content, max_pixels), [encoded], tf.uint8)
        with tf.control_dependencies([tf.debugging.assert_positive(tf.size(image), "no image, or too many pixels")]):
            return crop(tf.ensure_shape(image, (None, None, 3)))

    def crop(image):
        top, left, height, width = tf.unstack(choose_window(tf.shape(image)[:2]))
        return image[top : top + height, left : left + width]

    is_png = tf.strings.substr(encoded, 0, 4) == b"\x89PNG"
    image = tf.cond(tf.io.is_jpeg(encoded), decode_jpeg, lambda: tf.cond(is_png, decode_png, decode_other))
    image = tf.ensure_shape(image, (None, None, 3))
    return tf.image.rgb_to_grayscale(image) if channels == 1 else image


def _decode_by_pillow(content, max_pixels):
    """Returns `(H, W, 3)` uint8, of no pixels where that is impossible: TensorFlow would log an exception at length."""
    try:
        content = np.asarray(content, object).item()  # bytes in a graph, an array of them outside
        with Image.open(io.BytesIO(content), formats=BY_PILLOW) as image:
            if image.width * image.height <= max_pixels:
                return np.array(image.convert("RGB"))
    except Exception:  # whatever the damage leads Pillow to
        pass
    return np.zeros((0, 0, 3), np.uint8)


def _check_size(size, max_pixels):
    """Returns the operation that raises InvalidArgumentError for an image of more than `max_pixels`."""
    # A PNG may declare sides above 2^31, negative as int32.
    pixels = tf.reduce_prod(tf.abs(tf.cast(size, tf.int64)))
    return tf.debugging.assert_less_equal(pixels, tf.constant(max_pixels, tf.int64), "too many pixels")


def _problem_of_image(image, path, max_pixels):
    if image.width * image.height > max_pixels:
        return _too_many(max_pixels)
    if image.format not in FORMATS:
        return f"{image.format} is a format that cannot be decoded here"
    if image.format in BY_PILLOW:
        image.load()
        return ""
    if image.format == "PNG":
        if image.mode == "P" and not image.palette:
            return "a PNG without its palette"
        return _problem_of_png(path)
    if not image.quantization:  # no tables, or none needed
        return "lossless JPEG cannot be decoded here"
    if _part(path, -2, 2) != b"\xff\xd9":
        image.load()
        content = path.read_bytes()  # an end marker before the codes of the picture is that of a thumbnail
        if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
            return "the file is cut short"
    return ""


def _problem_of_png(path):
    """Walks over the chunks of a PNG, for what libpng refuses and Pillow reads; the picture itself is not read.

    Critical chunks, whose names begin with a capital, have to be known, and but for IDAT come once.
    """
    found = set()
    with open(path, "rb") as file:
        file.seek(8)
        while head := file.read(8):
            length, name = int.from_bytes(head[:4]), head[4:]
            content = file.read(length + 4) if name in (b"IHDR", b"IEND") else b""
            file.seek(length + 4 - len(content), os.SEEK_CUR)
            if not found and name != b"IHDR":
                return "PNG in Apple's variant cannot be decoded here"
            if name == b"IEND" and content == PNG_END:
                return "" if b"IDAT" in found else DAMAGED.format("PNG")
            if name == b"IHDR" and content[10:13] not in PNG_METHODS:
                return DAMAGED.format("PNG")
            if name[:1].isupper() and (name not in PNG_CHUNKS or (name in found and name != b"IDAT")):
                return DAMAGED.format("PNG")
            if length:
                found.add(name)
    return "the file is cut short"


def _problem_of_unknown(path, unidentified):
    """Names what Pillow cannot open or decode."""
    head = _part(path, 0, 16)
    if not head:
        return "the file is empty"
    if unidentified and path.suffix.lower() in OTHER_SUFFIXES:
        return f"{path.suffix[1:].upper()} is a format that cannot be decoded here"
    for magic, name in MAGIC.items():
        if head.startswith(magic):
            return DAMAGED.format(name)
    return "not an image"


def _too_many(max_pixels):
    return f"more than {max_pixels:,} pixels, data.max_pixels"


def _part(path, start, size):
    """Returns some bytes of a file, counted from its end where `start` is negative."""
    with open(path, "rb") as file:
        file.seek(max(0, start + path.stat().st_size) if start < 0 else start)
        return file.read(size)
