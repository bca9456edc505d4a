"""Masks as their files have them, and the classes that their numbers stand for."""

import io

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from experiments.data.formats import UnreadableError
from experiments.data.segmentation_masks import IGNORED, UNKNOWN, ClassTable, read_numbers
from experiments.errors import UserError
from tests.experiments.images import encode

NUMBERS = np.arange(48).reshape(6, 8) % 13


def palette(numbers, **options):
    image = Image.fromarray(numbers.astype(np.uint8), "P")
    image.putpalette([(7 * i + 90) % 256 for i in range(3 * 256)])  # colours that say nothing of the numbers
    return encode(image, **options)


def tiff(numbers, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, numbers, **options)
    return file.getvalue()


def pages(*masks, **options):
    """A TIFF of several pages; options are those of all but the first."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for i, numbers in enumerate(masks):
            writer.write(numbers.astype(np.uint8), **(options if i else {}))
    return file.getvalue()


FILES = {
    "8 bits": lambda: encode(NUMBERS.astype(np.uint8)),
    "16 bits": lambda: encode(Image.fromarray((NUMBERS * 257).astype(np.uint16))),
    "palette": lambda: palette(NUMBERS),
    "palette of 4 bits": lambda: palette(NUMBERS, bits=4),
    "grey as colours": lambda: encode(np.repeat(NUMBERS[..., None], 3, axis=-1).astype(np.uint8)),
    "TIFF of 8 bits": lambda: tiff(NUMBERS.astype(np.uint8)),
    "TIFF of 16 bits": lambda: tiff((NUMBERS * 257).astype(np.uint16), compression="zlib"),
    "TIFF with a palette": lambda: tiff(
        NUMBERS.astype(np.uint8), photometric="palette", colormap=np.arange(768, dtype=np.uint16).reshape(3, 256)
    ),
    "TIFF in planes": lambda: tiff(
        np.repeat(NUMBERS[None], 3, axis=0).astype(np.uint8), photometric="rgb", planarconfig="separate"
    ),
    "TIFF with an alpha channel": lambda: tiff(
        np.dstack([NUMBERS, 200 - NUMBERS]).astype(np.uint8), planarconfig="contig", extrasamples=["unassalpha"]
    ),
    "TIFF with an overview": lambda: pages(NUMBERS, NUMBERS[::2, ::2], subfiletype=1),
    "1 bit": lambda: encode(Image.fromarray((NUMBERS % 2).astype(bool))),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_numbers_of_a_file_are_read_as_they_are(kind):
    expected = NUMBERS * 257 if "16" in kind else NUMBERS % 2 if kind == "1 bit" else NUMBERS
    numbers = read_numbers(FILES[kind]())
    assert numbers.dtype.kind in "bu"
    np.testing.assert_array_equal(numbers, expected)


def test_grey_of_few_bits_is_not_spread():
    """Pillow cannot write such a file, and reads 0 to 3 as 0, 85, 170 and 255."""
    import zlib

    def chunk(name, data):
        return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

    rows = [[0, 1, 2, 3], [3, 2, 1, 0]]
    data = b"".join(bytes([0, sum(value << (6 - 2 * i) for i, value in enumerate(row))]) for row in rows)
    header = (4).to_bytes(4) + (2).to_bytes(4) + bytes([2, 0, 0, 0, 0])
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(read_numbers(content), rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: encode(np.random.default_rng(0).integers(0, 9, (4, 4, 3), np.uint8)), "it has colours"),
        (
            lambda: tf.io.encode_png(np.full((4, 4, 2), 300, np.uint16)).numpy(),
            "16 bits and colours or an alpha channel",
        ),
        (
            lambda: tf.io.encode_png(np.full((4, 4, 3), 300, np.uint16)).numpy(),
            "16 bits and colours or an alpha channel",
        ),
        (lambda: encode(np.zeros((4, 4), np.uint8), "jpeg"), "PNG or TIFF"),
        (lambda: pages(np.zeros((4, 4)), np.ones((4, 4)), subfiletype=2), "it has 2 pages, but a mask has one"),
        (lambda: tiff(np.zeros((3, 4, 4), np.uint8), photometric="minisblack"), "it has 3 pages, but a mask has one"),
        (
            lambda: tiff(np.arange(48, dtype=np.uint8).reshape(3, 4, 4), photometric="rgb", planarconfig="separate"),
            "it has colours",
        ),
        (
            lambda: tiff(np.zeros((16, 16, 16), np.uint8), volumetric=True, tile=(16, 16, 16)),
            "one whole number per pixel",
        ),
        (lambda: tiff(np.zeros((4, 4), np.float32)), "one whole number per pixel"),
        (lambda: b"", "empty"),
        (lambda: encode(np.zeros((50, 50), np.uint8)), "more than 100 pixels"),
    ],
)
def test_what_is_no_mask_is_told(content, message):
    with pytest.raises(UnreadableError, match=message):
        read_numbers(content(), max_pixels=100)


def test_a_damaged_tag_of_a_tiff_mask_is_not_warned_of(caplog):
    content = tiff(NUMBERS.astype(np.uint8), resolution=(72, 72))
    tag = content.index((282).to_bytes(2, "little"))
    damaged = content[: tag + 8] + b"\xff\xff\xff\x7f" + content[tag + 12 :]  # the place of the resolution
    np.testing.assert_array_equal(read_numbers(damaged), NUMBERS)
    assert not caplog.records


def test_classes_are_named_by_line_or_by_number(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("# names\nsky\n\nroad 7\nunlabelled\n", encoding="utf-8")
    table = ClassTable.read(path, ignored=(2,))
    assert table == ClassTable(("sky", "road 7"), (0, 1), (2,))
    path.write_text("0 nothing\n255: polyp, large\n", encoding="utf-8")
    table = ClassTable.read(path, ignored=(9, 300))
    assert table == ClassTable(("nothing", "polyp, large"), (0, 255), (9, 300))
    found = table.classes(np.array([[0, 255, 9, 300], [1, 65535, -3, 70000]]))
    np.testing.assert_array_equal(found, [[0, 1, IGNORED, IGNORED], [UNKNOWN] * 4])
    path.write_text(table.to_text(), encoding="utf-8")
    assert ClassTable.read(path, ignored=(9, 300)) == table
    for line in ("{} {}", "{}: {}", "{}. {}", "{}) {}", "{}={}", "{},{}", "{} - {}", "{}\t{}", "{}- {}"):
        path.write_text("\n".join(line.format(*pair) for pair in ((7, "sky"), (3, "2-way road"))), encoding="utf-8")
        assert ClassTable.read(path) == ClassTable(("sky", "2-way road"), (7, 3))
    path.write_text("stage 1\nstage 2\n3d\n", encoding="utf-8")
    assert ClassTable.read(path).names == ("stage 1", "stage 2", "3d")
    path.write_text("stage 1\nstage 2\n", encoding="utf-8")
    assert ClassTable.read(path).names == ("stage 1", "stage 2")
    assert ClassTable.of_numbers({255, 0, 7}, (7,)) == ClassTable(("0", "255"), (0, 255), (7,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 a\n0 b\n", "has the number 0 twice"),
        ("a\nb\na\n", "has the name a twice"),
        ("a\n", "names 1 classes; 2 to 1000 are allowed"),
        ("0 a\n70000 b\n", "numbered up to 65535"),
        ("0 a\n1 b\nvoid\n", "the line 'void' has no number before a name, but '0 a' has: "),
        ("0 a\n1 b\n-1 void\n", "the line '-1 void' has no number before a name"),
        ("0 a\n1 b\n2\n", "the line '2' has no number before a name"),
        ("0\n255\n", "has numbers without names: write a name after each, such as '255 road'"),
        ("road 1\nsky 2\n", "has numbers after the names: write them in front, such as '1 road'"),
        ("road,1\nsky=0\n", "has numbers after the names"),
        ("road\n2 storeys\n", "the line 'road' has no number before a name, but '2 storeys' has"),
    ],
)
def test_a_file_of_names_that_is_wrong_is_told(tmp_path, text, message):
    path = tmp_path / "classes.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        ClassTable.read(path)
    with pytest.raises(UserError, match="cannot be read"):
        ClassTable.read(tmp_path / "none.txt")


def test_too_few_classes_left_by_those_ignored_are_told(tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\nc\n", encoding="utf-8")
    with pytest.raises(UserError, match="names 3 classes, of which data.ignore_label=0,2 leaves 1: "):
        ClassTable.read(tmp_path / "classes.txt", ignored=(0, 2))
