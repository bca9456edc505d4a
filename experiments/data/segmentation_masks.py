"""Masks of a segmentation: PNG or TIFF files with one number per pixel, and which class each number stands for.

Numbers have 8 or 16 bits. In a palette image the indices count, not the colours. `data.ignore_label` lists numbers
whose pixels count in neither the loss nor the metrics. The names of the classes come from a text file: one name per
line, numbered from 0, or `NUMBER NAME` in every line (a mix of both is an error):

    0 background
    255 polyp

Empty lines, and lines that begin with `#`, are left out. Without such a file each number that occurs is a class.
"""

import dataclasses
import io
import os
import re
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import tensorflow as tf
from PIL import Image

from experiments.config import LARGEST_NUMBER, MAX_PIXELS
from experiments.data.files import read_path
from experiments.data.formats import (
    Header,
    UnreadableError,
    check_size,
    format_of,
    orientation_of,
    upright,
)
from experiments.data.tiff import first_page, full_pages, tiff_file, tiff_orientation
from experiments.errors import UserError
from experiments.io import local_path, reason

SUFFIXES = (".png", ".tif", ".tiff")
CLASSES = "classes.txt"  # in a folder of images with masks, and in the workdir of a run
IGNORED = -1  # class of pixels that do not count
UNKNOWN = -2  # of a number that stands for no class
MOST_CLASSES = 1000
NUMBERED = re.compile(r"(\d+)(?:\s*[,;:=|)]|[.-](?=\s)|\s+-(?=\s)|(?=\s))\s*(.*\S)")  # a line such as `1 road`


def read_numbers(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Returns the numbers of a mask from the bytes of its file: `(H, W)` of an integer type, upright.

    Raises:
        UnreadableError: if it is not a mask.
        Exception: whatever damage leads the libraries to.
    """
    kind = format_of(content[:32])
    if kind == "PNG":
        numbers, orientation = _read_png(content, max_pixels)
    elif kind == "TIFF":
        numbers, orientation = _read_tiff(content, max_pixels)
    else:
        raise UnreadableError("masks must be PNG or TIFF (JPEG changes values)" if content else "the file is empty")
    if numbers.ndim == 3:
        if not (numbers[..., :1] == numbers[..., :3]).all():
            raise UnreadableError("it has colours, but a mask has one number per pixel")
        numbers = numbers[..., 0]
    if numbers.ndim != 2 or numbers.dtype.kind not in "bui":
        raise UnreadableError("a mask has one whole number per pixel")
    # Libraries return the numbers of one bit as truth values, by which arrays are not indexed.
    return upright(numbers.astype(np.uint8) if numbers.dtype == bool else numbers, orientation)


def _read_png(content: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        check_size(Header((image.height, image.width), 1), max_pixels)
        numbers = np.asarray(image)
        orientation = orientation_of(image)
    depth, colour = content[24:26]
    if depth == 16 and colour != 0:  # Pillow keeps the upper half of each number
        raise UnreadableError("it has 16 bits and colours or an alpha channel; save it as grey of 16 bits")
    if colour == 0 and depth in (2, 4):  # Pillow spreads grey over 0 to 255
        numbers = numbers // (255 // (2**depth - 1))
    return numbers[..., 0] if image.mode == "LA" else numbers, orientation


def _read_tiff(content: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    tiff = tiff_file(io.BytesIO(content))
    page, count = first_page(tiff), len(full_pages(tiff))
    if count > 1:
        raise UnreadableError(f"it has {count} pages, but a mask has one: save only the page with the mask")
    if not set(page.axes) <= set("YXS"):
        raise UnreadableError("a mask has one whole number per pixel")
    check_size(Header((page.imagelength, page.imagewidth), 1), max_pixels)
    numbers = page.asarray()
    if numbers.ndim == 3 and page.axes[0] == "S":  # one plane after the other
        numbers = np.moveaxis(numbers, 0, -1)
    if numbers.ndim == 3 and numbers.shape[-1] == 2 and page.extrasamples:  # an alpha channel
        numbers = numbers[..., 0]
    return numbers, tiff_orientation(page)


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """The mapping from the numbers in masks to classes.

    Args:
        names: of the classes.
        numbers: of each class, in a mask.
        ignored: numbers of pixels that do not count.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    ignored: tuple[int, ...] = ()

    @classmethod
    def of_numbers(cls, numbers: Iterable[int], ignored: Sequence[int]) -> Self:
        """Returns the table of classes named after their numbers."""
        numbers = tuple(sorted({*numbers} - {*ignored}))
        return cls(tuple(map(str, numbers)), numbers, tuple(ignored))

    @classmethod
    def read(cls, path: str | os.PathLike[str], ignored: Sequence[int] = ()) -> Self:
        """Returns the table of a text file, without its ignored numbers.

        Raises:
            UserError: if it cannot be read, has fewer than two classes, names one twice, or has numbers without names.
        """
        try:
            text = local_path(path).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = reason(error) if isinstance(error, OSError) else "it is not UTF-8"
            raise UserError(f"{path}, which names the classes, cannot be read: {why}.") from error
        lines = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]
        pairs = [NUMBERED.fullmatch(line) for line in lines]
        if any(pairs) and not all(pairs):
            other, numbered = lines[pairs.index(None)], next(filter(None, pairs))[0]
            raise UserError(
                f"{path}: the line {other!r} has no number before a name, but {numbered!r} has: put one in every line, "
                "or in none."
            )
        behind = [re.fullmatch(r"(.*\S)[\s,;:=|]+(\d+)", line) for line in lines]
        if not any(pairs) and all(behind) and len({pair[1] for pair in behind if pair}) == len(behind) > 1:
            name, number = next(filter(None, behind)).groups()
            raise UserError(f"{path} has numbers after the names: write them in front, such as '{number} {name}'.")
        if lines != [str(i) for i in range(len(lines))] and all(map(str.isdecimal, lines)):
            raise UserError(f"{path} has numbers without names: write a name after each, such as '{lines[-1]} road'.")
        found = ((int(pair[1]), pair[2]) for pair in pairs if pair) if all(pairs) else enumerate(lines)
        entries = [(number, name) for number, name in found if number not in ignored]
        if len(entries) < 2 <= len(lines):
            raise UserError(
                f"{path} names {len(lines)} classes, of which data.ignore_label={','.join(map(str, ignored))} leaves "
                f"{len(entries)}: a segmentation has two or more."
            )
        numbers, names = zip(*entries) if entries else ((), ())
        for what, values in (("number", numbers), ("name", names)):
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise UserError(f"{path} has the {what} {twice} twice.")
        if not 2 <= len(names) <= MOST_CLASSES or max(numbers) > LARGEST_NUMBER:
            raise UserError(
                f"{path} names {len(names)} classes; 2 to {MOST_CLASSES} are allowed, numbered up to {LARGEST_NUMBER}."
            )
        return cls(tuple(names), tuple(numbers), tuple(ignored))

    def to_text(self) -> str:
        """Returns what `read` reads."""
        return "".join(f"{number} {name}\n" for number, name in zip(self.numbers, self.names))

    def unknown(self, numbers: Iterable[int]) -> int | None:
        """Returns the first of some numbers that neither stands for a class nor is ignored, or None."""
        return next((number for number in numbers if number not in self.numbers and number not in self.ignored), None)

    def classes(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the class of each number of an array, int32: `IGNORED` or `UNKNOWN` for those that have none."""
        known = np.full(LARGEST_NUMBER + 2, UNKNOWN, np.int32)
        known[list(self.ignored)] = IGNORED
        known[list(self.numbers)] = np.arange(len(self.numbers))
        return known[np.where((numbers < 0) | (numbers > LARGEST_NUMBER), LARGEST_NUMBER + 1, numbers)]


@dataclasses.dataclass(frozen=True)
class Masks:
    """The masks of a source.

    Args:
        table: the `ClassTable`.
        paths: `(M,)` paths of files; the label of an example is the index of its mask among them. None if an example is
            the bytes of the image followed by those of its mask; then the label is the number of bytes of the image.
        max_pixels: largest number of pixels of a mask that is decoded.
    """

    table: ClassTable
    paths: np.ndarray | None = None
    max_pixels: int = MAX_PIXELS

    def read(self, content: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads the mask of an example, in the graph of a data set.

        Args:
            content: scalar string tensor, of the example.
            label: scalar int64 tensor, of the example.

        Returns:
            `(content, mask)`: the content of the image, for `split.read`, and `(H, W)` int32, the class of each pixel.

        Raises:
            InvalidArgumentError: when it is run, if the mask cannot be read or has a number without a class.
        """
        if self.paths is None:
            size = tf.cast(label, tf.int32)
            encoded = tf.strings.substr(content, size, tf.strings.length(content))
            content = tf.strings.substr(content, 0, size)
        else:
            with tf.init_scope(), tf.device("CPU"):
                paths = tf.constant(self.paths)
            encoded = read_path(paths[label])
        mask = tf.ensure_shape(tf.numpy_function(self._decode, [encoded], tf.int32), (None, None))
        with tf.control_dependencies([tf.debugging.assert_positive(tf.size(mask), "no mask that can be read")]):
            return content, tf.identity(mask)

    def _decode(self, content: bytes | np.ndarray) -> np.ndarray:
        """Returns `(H, W)` int32, without pixels where it fails: TensorFlow would log an exception at length."""
        try:
            classes = self.table.classes(read_numbers(np.asarray(content, object).item(), self.max_pixels))
            if classes.min() > UNKNOWN:
                return classes
        except Exception:  # whatever the damage leads the libraries to
            pass
        return np.zeros((0, 0), np.int32)
