"""Folders of damaged and malicious images: what cannot be used is skipped or counted, and nothing else happens."""

import os
import re
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experiments.config import MAX_PIXELS, DataConfig
from experiments.data import decoding
from experiments.data.decoding import problem_of
from experiments.data.pipeline import evaluation_batches, training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit
from experiments.data.sources.folder import open_folder
from experiments.data.values import Reading
from experiments.errors import UserError
from tests.experiments.images import encode, gradient, write
from tests.fuzz import damaged, fuzzed

ALL = DataConfig(validation_share=0.0, test_share=0.0)
PREPROCESSING = Preprocessing(16, 3, (0.0,) * 3, (1.0,) * 3)
NOISE = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
GOOD = encode(gradient(24, 20))
ANIMATION = [Image.fromarray(NOISE[..., i]) for i in (1, 2)]
FILES = {
    "jpeg": encode(NOISE, "jpeg"),
    "progressive jpeg": encode(NOISE, "jpeg", progressive=True),
    "png": encode(NOISE),
    "palette png": encode(Image.fromarray(NOISE).quantize(16)),
    "gif": encode(NOISE[..., 0], "gif"),
    "animated gif": encode(NOISE[..., 0], "gif", save_all=True, append_images=ANIMATION),
    "bmp": encode(NOISE, "bmp"),
}
BATCH = 4


def split_of(contents):
    return MemorySplit(np.array(contents, dtype=object), np.zeros(len(contents), np.int64), unchecked=True)


def loaded_together(contents, preprocessing=PREPROCESSING):
    """Which of some images can be read, and the pixels of the one that is good."""
    (batch,) = evaluation_batches(split_of(contents), preprocessing, len(contents)).as_numpy_iterator()
    return batch["weights"], batch["images"]


@pytest.fixture(scope="module")
def decode():
    """Returns the function from `BATCH` contents to weights and images, as training loads them; compiled once."""
    holder = tf.Variable([b""] * BATCH)

    class Held(MemorySplit):
        def read(self, content):
            return holder[tf.strings.to_number(content, tf.int32)]

    numbers = np.array([str(i).encode() for i in range(BATCH)], dtype=object)
    split = Held(numbers, np.zeros(BATCH, np.int64), unchecked=True)
    batches = evaluation_batches(split, PREPROCESSING, BATCH)

    def decode(contents):
        holder.assign(contents)
        (batch,) = batches.as_numpy_iterator()
        return batch["weights"], batch["images"]

    return decode


@pytest.fixture(scope="module")
def good_pixels(decode):
    return decode([GOOD] * BATCH)[1][0]


@fuzzed(25)
@given(data=st.data())
def test_damaged_bytes_are_read_or_unreadable_and_touch_no_other_image(decode, good_pixels, data):
    kinds = [data.draw(st.sampled_from(sorted(FILES))) for _ in range(BATCH - 1)]
    contents = [GOOD, *(data.draw(damaged(FILES[kind])) for kind in kinds)]
    weights, images = decode(contents)
    assert weights[0] == 1 and set(weights) <= {0.0, 1.0} and np.isfinite(images).all()
    np.testing.assert_array_equal(images[0], good_pixels)
    assert not images[weights == 0].any()


@fuzzed(25)
@given(data=st.data())
def test_a_folder_of_damaged_files_is_opened(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("images")
    write(root / "good.png", GOOD)
    for i in range(4):
        kind = data.draw(st.sampled_from(sorted(FILES)))
        write(
            root / f"{i}.{data.draw(st.sampled_from(['jpg', 'png', 'gif', 'webp']))}", data.draw(damaged(FILES[kind]))
        )
    source = open_folder(root, ALL)
    assert os.fsencode(root / "good.png") in list(source.split("train").contents)
    skipped = 5 - source.split("train").num_examples
    assert any(note.startswith(f"skipped {skipped} files: ") for note in source.notes) == bool(skipped)


# Bombs: small files that declare many pixels.


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width, height):
    """A PNG that declares a size, and is complete if it is small."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((width + 1) * height, 10**6)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bmp_of(width, height):
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


def gif_of(width, height):
    content = bytearray(FILES["gif"])
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


def jpeg_of(width, height):
    content = bytearray(FILES["jpeg"])
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


BOMBS = {
    "png": png_of(60000, 60000),
    "png of one row": png_of(2**31 - 1, 1),
    "png just above": png_of(13378, 13378),
    "bmp": bmp_of(60000, 60000),
    "bmp from top to bottom": bmp_of(60000, -60000),
    "gif": gif_of(60000, 60000),
    "jpeg": jpeg_of(60000, 60000),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_image_of_too_many_pixels_is_skipped_by_a_folder_and_unreadable_elsewhere(tmp_path, bomb):
    write(tmp_path / "bomb.png", BOMBS[bomb])
    write(tmp_path / "good.png", GOOD)
    source = open_folder(tmp_path, ALL)
    assert source.split("train").num_examples == 1
    assert source.notes[-1] == f"  bomb.png: more than {MAX_PIXELS:,} pixels (data.max_pixels)"
    assert list(loaded_together([BOMBS[bomb], GOOD])[0]) == [0, 1]


def test_of_an_animation_only_the_first_picture_is_decoded_and_counts(tmp_path):
    content = FILES["animated gif"]
    picture = b"\x2c" + struct.pack("<HHHH", 0, 0, 20, 24)
    assert content.count(picture) == 3
    first, later = content.index(picture) + 5, content.rindex(picture) + 5
    for name, at, weight in (("first", first, 0), ("later", later, 1)):
        larger = bytearray(content)
        larger[at : at + 4] = struct.pack("<HH", 60000, 60000)  # than the screen
        assert list(loaded_together([bytes(larger), GOOD])[0]) == [weight, 1]
        path = write(tmp_path / f"{name}.gif", bytes(larger))
        assert problem_of(path, Reading()) == ("" if weight else f"more than {MAX_PIXELS:,} pixels (data.max_pixels)")


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp"])
def test_the_limit_is_the_largest_number_of_pixels_that_is_read(tmp_path, kind):
    content = encode(gradient(24, 20) if kind != "gif" else gradient(24, 20, 1), kind)
    for limit, weight in ((479, 0), (480, 1)):
        preprocessing = Preprocessing.of(DataConfig(image_size=16, max_pixels=limit))
        assert list(loaded_together([content, encode(gradient(4, 4))], preprocessing)[0]) == [weight, 1]
        write(tmp_path / str(limit) / "image.png", content)
        config = DataConfig(validation_share=0.0, test_share=0.0, max_pixels=limit)
        if weight:
            assert open_folder(tmp_path / str(limit), config).split("train").num_examples == 1
        else:
            with pytest.raises(UserError, match="none of its 1 image files can be read"):
                open_folder(tmp_path / str(limit), config)


def test_a_limit_out_of_range_is_refused():
    with pytest.raises(
        UserError, match=re.escape(f"data.max_pixels must be at most {MAX_PIXELS}, got {MAX_PIXELS + 1}.")
    ):
        DataConfig(max_pixels=MAX_PIXELS + 1)


def test_a_file_that_ends_in_zeros_is_not_read_to_its_end(tmp_path, monkeypatch):
    """As one that was allocated and not written: a PNG's zeros are no chunks, and others are skipped by their size."""
    monkeypatch.setattr(decoding, "LARGEST_FILE", 10_000)
    png = encode(gradient(40, 40))
    for name, content in (("a.png", png[:-12]), ("b.jpg", encode(gradient(40, 40), "jpeg"))):
        write(tmp_path / name, content + bytes(20_000))
    write(tmp_path / "good.png", GOOD)
    assert list(decoding._png_chunks(png[:-12] + bytes(20_000))) == [b"IHDR", b"IDAT"]
    assert open_folder(tmp_path, ALL).skipped == (
        ("a.png", decoding.DAMAGED.format("PNG")),
        ("b.jpg", "a JPEG file of more than 10,000 bytes"),
    )


def test_a_pipe_that_is_called_like_an_image_is_not_waited_for(tmp_path):
    write(tmp_path / "good.png", GOOD)
    os.mkfifo(tmp_path / "pipe.png")
    source = open_folder(tmp_path, ALL)
    assert source.notes[-1] == "  pipe.png: not a file"


def test_training_counts_a_bomb_and_keeps_the_places_of_others():
    split = split_of([GOOD, BOMBS["png"], GOOD, FILES["png"]])
    (batch,) = training_batches(split, PREPROCESSING, 4, seed=0).take(1).as_numpy_iterator()
    assert batch["weights"].sum() == 3
