"""The formats of image files: how each is recognized by its first bytes, and decoded as it is stored.

`FORMATS` is the table of them. The content of a file decides its format; its suffix decides only whether it is opened.
Pixels keep the type, channels and orientation of the file; `experiments.data.values` converts them to what the model
sees. TensorFlow decodes the usual JPEG, PNG and WebP files, see `experiments.data.decoding`; all others are decoded
here.
"""

import dataclasses
import importlib.util
import io
import math
import struct
import typing
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image

from experiments.config import MAX_PIXELS
from experiments.data.tiff import first_page, full_pages, tiff_file, tiff_orientation

if typing.TYPE_CHECKING:
    import tifffile

ORIENTATION = 0x112  # EXIF's tag
FIRST, ALL = "first", "all"
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # about damaged metadata
Image.init()  # registers the formats that `Image.open` is restricted to
TRUNCATED = "the file is truncated"
DEEP = 4  # bytes per pixel, times `max_pixels`, above which an image is not decoded


class UnreadableError(Exception):
    """An image cannot be read; the message says why."""


@dataclasses.dataclass(frozen=True)
class Stored:
    """An image as stored in its file.

    Args:
        pixels: `(H, W, channels)` of the file's own type.
        alpha: whether the last channel is alpha.
        orientation: EXIF orientation, 1 to 8: how to turn the pixels upright, see `upright`.
        largest: value of white if it is not the largest of the type, as for 12 bits stored in 16; otherwise 0.
    """

    pixels: np.ndarray
    alpha: bool = False
    orientation: int = 1
    largest: int = 0


@dataclasses.dataclass(frozen=True)
class Header:
    """The facts about an image that its file gives without decoding.

    Args:
        size: `(height, width)` as stored.
        channels: number of channels, including alpha.
        alpha: whether the last of them is alpha.
    """

    size: tuple[int, int]
    channels: int
    alpha: bool = False


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of image files.

    Args:
        starts: the possible first bytes of its files; `?` stands for any byte.
        suffixes: of its files.
        open: function from a file that is open and `pages` to `(Header, function that decodes it to a Stored)`.
        package: the package that it needs beyond the extra `train`.
    """

    starts: tuple[bytes, ...]
    suffixes: tuple[str, ...]
    open: typing.Callable
    package: str = ""


def format_of(head: bytes) -> str:
    """Returns the name of the format of a file that begins with `head`, 32 bytes or fewer; empty for none of them."""
    for name, kind in FORMATS.items():
        for start in kind.starts:
            if len(head) >= len(start) and all(a in (b, 63) for a, b in zip(start, head)):  # 63: ?
                return name
    return ""


def read_header(file: typing.BinaryIO, pages: str = FIRST) -> tuple[str, Header, Callable[[], Stored]]:
    """Returns `(name of the format, Header, decode)` of an open image file; `decode()` returns its `Stored`.

    Args:
        file: open for reading, in binary mode.
        pages: of a TIFF file, `first` or `all`: the channels of each page follow those of the page before.

    Raises:
        UnreadableError: if its format is not in the table, or it is an unsupported kind of that format.
        Exception: of any type, from the libraries, for a damaged file.
    """
    head = file.read(32)
    file.seek(0)
    name = format_of(head)
    if not name:
        raise UnreadableError("the file is empty" if not head else "not an image in a supported format")
    kind = FORMATS[name]
    if kind.package and importlib.util.find_spec(kind.package) is None:
        package = kind.package.replace("_", "-")
        raise UnreadableError(f"{name} needs a package that is not installed: pip install {package}")
    return name, *kind.open(file, pages)


def check_size(header: Header, max_pixels: int) -> None:
    """Raises UnreadableError for an image that is too large to be decoded."""
    if min(*header.size, header.channels) < 1:
        raise UnreadableError("an image without pixels")
    pixels = math.prod(header.size)
    if pixels > max_pixels or pixels * header.channels > DEEP * max_pixels:
        raise UnreadableError(f"more than {max_pixels:,} pixels (data.max_pixels)")


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns `(H, W, ...)` upright by its EXIF orientation, 1 to 8: exactly like `PIL.ImageOps.exif_transpose`."""
    swaps, down, right = turns(orientation)
    pixels = np.swapaxes(pixels, 0, 1) if swaps else pixels
    return pixels[:: -1 if down else 1, :: -1 if right else 1]


def turns(orientation: int) -> tuple[bool, bool, bool]:
    """Returns the meaning of an orientation: whether to swap rows and columns, then flip vertically, horizontally."""
    return orientation > 4, orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)


def orientation_of(image: Image.Image) -> int:
    """Returns the orientation of an image that Pillow has opened; 1 if it has none, or its EXIF data is damaged."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged file can make Pillow raise anything
        return 1
    return orientation if orientation in range(1, 9) else 1


OPACITY = {"LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}  # Pillow's modes with an alpha channel
AS_STORED = ("L", "RGB", "LA", "RGBA", "I", "F", "I;16")


def _open_by_pillow(name: str) -> Callable[[typing.BinaryIO, str], tuple]:
    def open_file(file: typing.BinaryIO, pages: str) -> tuple[Header, Callable[[], Stored]]:
        del pages
        image = Image.open(file, formats=(name,))
        return header_of(image), lambda: _decode_by_pillow(image)

    return open_file


def header_of(image: Image.Image) -> Header:
    """Returns the `Header` of an image that Pillow has opened."""
    mode = _mode(image)
    channels = len(mode) if mode in ("LA", "RGB", "RGBA") else 1
    deep = mode == "I;16" and "transparency" in image.info  # a PNG, which Pillow does not decode
    return Header((image.height, image.width), channels + deep, deep or mode in ("LA", "RGBA"))


def _mode(image: Image.Image) -> str:
    """Returns the mode, among those that are read as arrays, that keeps all content of an image."""
    if image.mode in OPACITY:
        return OPACITY[image.mode]
    if "transparency" in image.info and image.mode in ("1", "L", "RGB", "P"):
        return "LA" if image.mode in ("1", "L") else "RGBA"
    if image.mode.startswith("I;16"):
        return "I;16"
    return {"1": "L"}.get(image.mode, image.mode if image.mode in AS_STORED else "RGB")


def _decode_by_pillow(image: Image.Image) -> Stored:
    image.load()
    orientation, mode = orientation_of(image), _mode(image)
    pixels = np.asarray(image if mode == "I;16" or image.mode == mode else image.convert(mode))
    return Stored(pixels.reshape(*pixels.shape[:2], -1), mode in ("LA", "RGBA"), orientation)


def _open_png(file: typing.BinaryIO, pages: str) -> tuple[Header, Callable[[], Stored]]:
    """Opens a PNG; of 16-bit colours, Pillow would keep the upper 8 bits, TensorFlow reads all."""
    del pages
    image = Image.open(file, formats=("PNG",))
    header = header_of(image)
    file.seek(24)
    depth, colours = file.read(2)
    if depth == 16:
        return header, lambda: _decode_deep_png(file, header, image)
    if colours == 0 and depth in (2, 4) and "transparency" in image.info:
        # Pillow spreads grey over 0 to 255, but not the transparent one.
        image.info["transparency"] *= 255 // (2**depth - 1)
    return header, lambda: _decode_by_pillow(image)


def _decode_deep_png(file: typing.BinaryIO, header: Header, image: Image.Image) -> Stored:
    import tensorflow as tf

    image.load()  # finds the orientation, wherever it is stored
    file.seek(0)
    channels = 4 if header.alpha else header.channels
    pixels = tf.io.decode_png(file.read(), channels=channels, dtype=tf.uint16).numpy()
    return Stored(pixels[..., [0, 3]] if header.channels == 2 else pixels, header.alpha, orientation_of(image))


def _open_jpeg_2000(file: typing.BinaryIO, pages: str) -> tuple[Header, Callable[[], Stored]]:
    """Pillow reads 8 bits of up to four channels; imagecodecs the others."""
    content = file.read()
    file.seek(0)
    at = content.find(b"\xff\x4f\xff\x51") + 2  # the codestream, behind boxes
    right, bottom, left, top = struct.unpack_from(">4I", content, at + 6)
    (channels,) = struct.unpack_from(">H", content, at + 38)
    depths = {content[at + 40 + 3 * i] for i in range(channels)}
    if depths == {7} and channels <= 4:
        return _open_by_pillow("JPEG2000")(file, pages)
    if len(depths) > 1 or max(depths) > 0x8F:
        raise UnreadableError("JPEG 2000 with channels that differ, or with more than 16 bits, is not supported")

    def decode() -> Stored:
        import imagecodecs

        depth = (max(depths) & 0x7F) + 1
        largest = 0 if max(depths) & 0x80 or depth in (8, 16) else 2**depth - 1
        return Stored(_with_channels(imagecodecs.jpeg2k_decode(content)), largest=largest)

    return Header((bottom - top, right - left), channels), decode


def _open_avif(file: typing.BinaryIO, pages: str) -> tuple[Header, Callable[[], Stored]]:
    """Pillow reads 8 bits; imagecodecs 10 and 12."""
    del pages
    content = file.read()
    file.seek(0)
    image = Image.open(file, formats=("AVIF",))
    header = header_of(image)
    at = content.find(b"av1C")
    deep = at > 0 and content[at + 6] & 0x40
    if not deep:
        return header, lambda: _decode_by_pillow(image)
    largest = 4095 if content[at + 6] & 0x20 else 1023
    frames = getattr(image, "n_frames", 1)
    if math.prod(header.size) * frames > MAX_PIXELS:
        raise UnreadableError(f"an animation of 10 or 12 bits with {frames:,} frames, too many to decode at once")

    def decode_deep() -> Stored:
        import imagecodecs

        image.load()
        pixels = imagecodecs.avif_decode(content)
        pixels = _with_channels(pixels[0] if frames > 1 else pixels)
        return Stored(pixels, pixels.shape[-1] in (2, 4), orientation_of(image), largest)

    return header, decode_deep


def _open_heif(file: typing.BinaryIO, pages: str) -> tuple[Header, Callable[[], Stored]]:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return _open_by_pillow("HEIF")(file, pages)


GREY, RGB = (0, 1), 2  # TIFF's photometric interpretations that are read as stored: white or black is zero, colours
TRANSPARENT = (1, 2)  # TIFF's extra samples that are alpha


def _open_tiff(file: typing.BinaryIO, pages: str) -> tuple[Header, Callable[[], Stored]]:
    """Opens a TIFF: tifffile reads any type and number of channels; Pillow reads files that need colour conversion."""
    tiff = tiff_file(file)
    page = first_page(tiff)
    if page.photometric not in (*GREY, RGB):
        if pages == ALL and len(tiff.pages) > 1:
            raise UnreadableError("a TIFF file of several pages with a palette, CMYK or the like: save them as RGB")
        file.seek(0)
        header, by_pillow = _open_by_pillow("TIFF")(file, pages)
        # Pillow turns it when it decodes.
        return header, lambda: dataclasses.replace(by_pillow(), orientation=1)
    axes, shape, read = _pages_of(tiff) if pages == ALL else (page.axes, page.shape, page.asarray)
    if "Y" not in axes or "X" not in axes or (pages == FIRST and not set(axes) <= set("YXS")):
        raise UnreadableError("a TIFF file of more than two dimensions: data.pages=all reads them as channels")
    if page.dtype is None or page.dtype.kind not in "buif":
        raise UnreadableError("a TIFF file whose values are not numbers")
    size = shape[axes.index("Y")], shape[axes.index("X")]
    channels = math.prod(shape) // max(1, math.prod(size))
    alpha = pages == FIRST and bool(page.extrasamples) and int(page.extrasamples[-1]) in TRANSPARENT
    bits = page.bitspersample
    bits = max(bits) if isinstance(bits, tuple) else bits
    largest = 2**bits - 1 if page.dtype.kind in "bu" and bits not in (8, 16, 32, 64) else 0

    def decode() -> Stored:
        pixels = np.moveaxis(read(), (axes.index("Y"), axes.index("X")), (0, 1))
        pixels = pixels.reshape(*size, channels)
        pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
        if page.photometric == 0 and pixels.dtype.kind == "u":  # white is zero
            colours = slice(channels - alpha)
            pixels = pixels.copy()
            pixels[..., colours] = (largest or np.iinfo(pixels.dtype).max) - pixels[..., colours]
        if alpha and int(page.extrasamples[-1]) == 1:
            pixels = _unassociated(pixels)
        return Stored(pixels, alpha, tiff_orientation(page), largest)

    return Header(size, channels, alpha), decode


def _pages_of(tiff: "tifffile.TiffFile") -> tuple[str, tuple[int, ...], Callable[[], np.ndarray]]:
    """Returns `(axes, shape, function that reads)` of all pages of a TIFF file, which follow each other.

    Raises:
        UnreadableError: if they differ in size, type or channels.
    """
    if len(tiff.series) == 1:  # a stack, of pages or of what ImageJ and microscopes write
        return tiff.series[0].axes, tiff.series[0].shape, tiff.series[0].asarray
    pages = full_pages(tiff)
    if len({(page.shape, page.dtype, page.keyframe.photometric) for page in pages}) > 1:
        raise UnreadableError("its pages differ in size, type or channels: data.pages=first reads the first")
    return "Q" + pages[0].axes, (len(pages), *pages[0].shape), lambda: np.stack([page.asarray() for page in pages])


def _unassociated(pixels: np.ndarray) -> np.ndarray:
    """Converts premultiplied to straight alpha, in the type of the file."""
    is_float = pixels.dtype.kind == "f"
    white = 1.0 if is_float else float(np.iinfo(pixels.dtype).max)
    stored, opacity = pixels[..., :-1].astype(np.float64), pixels[..., -1:].astype(np.float64)
    colours = np.divide(stored * white, opacity, out=np.zeros_like(stored), where=opacity > 0)
    # Colours in [0, 1] are no larger than their alpha; floating point may have any other range.
    in_range = stored <= opacity * (1 + 1e-6) if is_float else True
    colours = np.where(in_range, np.minimum(colours, white), colours)
    colours = colours if is_float else np.rint(colours)
    return np.concatenate([colours, opacity], axis=-1).astype(pixels.dtype)


def _open_array(file: typing.BinaryIO, pages: str) -> tuple[Header, Callable[[], Stored]]:
    """`(height, width)` or `(height, width, channels)`; nothing in the file is run."""
    del pages
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if len(shape) not in (2, 3) or dtype.kind not in "buif":
        raise UnreadableError("not an array of numbers with shape (height, width) or (height, width, channels)")

    count, start = math.prod(shape), file.tell()
    if file.seek(0, io.SEEK_END) - start < count * dtype.itemsize:
        raise UnreadableError(TRUNCATED)
    file.seek(start)

    def decode() -> Stored:
        pixels = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
        pixels = _with_channels(pixels.reshape(shape, order="F" if fortran else "C"))
        is_bool = dtype.kind == "b"
        return Stored(pixels.astype(np.uint8) if is_bool else pixels, largest=int(is_bool))

    return Header((shape[0], shape[1]), shape[2] if len(shape) == 3 else 1), decode


def _with_channels(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels


DIB_HEADERS = tuple(struct.pack("<I", size) for size in (12, 40, 52, 56, 64, 108, 124))
FORMATS = {
    "JPEG": Format(
        (b"\xff\xd8\xff",),
        (".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".mpo"),
        _open_by_pillow("JPEG"),
    ),
    "PNG": Format((b"\x89PNG",), (".png", ".apng"), _open_png),
    "BMP": Format((b"BM",), (".bmp",), _open_by_pillow("BMP")),
    "DIB": Format(DIB_HEADERS, (".dib",), _open_by_pillow("DIB")),
    "GIF": Format((b"GIF8",), (".gif",), _open_by_pillow("GIF")),
    "WEBP": Format((b"RIFF????WEBP",), (".webp",), _open_by_pillow("WEBP")),
    "TIFF": Format((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), (".tif", ".tiff", ".btf", ".tf8"), _open_tiff),
    "AVIF": Format((b"????ftypavif", b"????ftypavis", b"????ftypmif1????avif"), (".avif", ".avifs"), _open_avif),
    "JPEG 2000": Format(
        (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
        (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
        _open_jpeg_2000,
    ),
    "HEIC": Format(
        tuple(b"????ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")),
        (".heic", ".heics", ".heif", ".hif"),
        _open_heif,
        "pillow_heif",
    ),
    "NPY": Format((b"\x93NUMPY",), (".npy",), _open_array),
}  # fmt: skip
SUFFIXES = tuple(suffix for kind in FORMATS.values() for suffix in kind.suffixes)
