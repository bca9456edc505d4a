"""Damage in the middle of JPEG files: found, counted and named, and nothing else taken for it."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_image

from experiments.config import DataConfig
from experiments.data import files, jpeg_damage
from experiments.data.pipeline import evaluation_batches, training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import Source, StreamSplit
from experiments.data.sources.folder import open_folder
from experiments.data.sources.mix import mix
from tests.experiments.image_kinds import good_kinds, refused_kinds
from tests.experiments.images import encode, gradient, write

ALL = DataConfig(validation_share=0.0, test_share=0.0)
PREPROCESSING = Preprocessing(16, 3, (0.0,) * 3, (1.0,) * 3, crop_scale=(0.2, 0.4))
PHOTOGRAPH = Image.fromarray(load_sample_image("china.jpg")[:, :500])
OPTIONS = {
    "sequential": {},
    "own tables": {"optimize": True},
    "full colour": {"subsampling": 0},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
    "progressive": {"progressive": True},
    "grey progressive": {"mode": "L", "progressive": True},
    "restart markers": {"restart_marker_rows": 1},
    "progressive with restart markers": {"progressive": True, "restart_marker_rows": 4},
}
SECTOR = 512
DAMAGES = {
    "zeroed": lambda data, at, rng: data[:at] + bytes(SECTOR) + data[at + SECTOR :],
    "foreign bytes": lambda data, at, rng: data[:at] + rng.bytes(SECTOR) + data[at + SECTOR :],
    "lost": lambda data, at, rng: data[:at] + data[at + SECTOR :],
    "put in": lambda data, at, rng: data[:at] + rng.bytes(SECTOR) + data[at:],
    "truncated, with an end marker": lambda data, at, rng: data[:at].rstrip(b"\xff") + b"\xff\xd9",
    "a marker": lambda data, at, rng: data[:at] + bytes((0xFF, rng.choice([0x3A, 0xD9, 0xE0, 0xC8]))) + data[at + 2 :],
}
TIMES = 8
# Zeros are codes too, after which the decoder is in step more often; between restart markers nothing is counted.
FOUND = {"zeroed": 5, "zeroed, restart markers": 2}


def photograph(quality=85, **options):
    return encode(PHOTOGRAPH, "jpeg", quality=quality, **options)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_of_a_sector_in_the_middle_is_found(options, damage):
    content, rng = photograph(**OPTIONS[options]), np.random.default_rng(0)
    assert not jpeg_damage.is_damaged(content)
    start = content.index(b"\xff\xda") + 300
    places = np.linspace(start, len(content) - 2 * SECTOR, TIMES).astype(int).tolist()
    found = [jpeg_damage.is_damaged(DAMAGES[damage](content, at, rng)) for at in places]
    assert sum(found) >= FOUND.get(f"{damage}, {options}", FOUND.get(damage, TIMES - 1))


@pytest.mark.parametrize("quality", [10, 75, 100])
@pytest.mark.parametrize("options", OPTIONS)
def test_no_whole_file_is_taken_for_a_damaged_one(options, quality):
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 40), (8, 8), (9, 15), (16, 17), (32, 32), (33, 70), (100, 64)):
        for pixels in (
            gradient(height, width),
            np.full((height, width, 3), 128, np.uint8),
            np.zeros((height, width, 3), np.uint8),
            rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        ):
            content = encode(Image.fromarray(pixels), "jpeg", quality=quality, **OPTIONS[options])
            assert not jpeg_damage.is_damaged(content), (height, width)


def test_no_other_kind_of_file_is_taken_for_a_damaged_jpeg():
    others = {name: content for name, (content, _) in refused_kinds().items() if name in ("JPEG, lossless", "TIFF")}
    for name, content in (good_kinds() | others).items():
        assert not (content.startswith(b"\xff\xd8") and jpeg_damage.is_damaged(content)), name


@pytest.mark.parametrize("more", [b"\x00" * 100, b"\xff" * 5, b"\x12\x34\x56"])
def test_a_few_bytes_before_the_end_marker_are_no_damage(more):
    content = photograph()
    assert not jpeg_damage.is_damaged(content[:-2] + more + content[-2:])


@pytest.fixture
def fresh(monkeypatch):
    """Nothing is known of any image, and nothing has been named; returns the list of files that are checked."""
    monkeypatch.setattr(jpeg_damage, "_found", set())
    files._results.cache_clear()
    calls, check = [], jpeg_damage.is_damaged
    monkeypatch.setattr(jpeg_damage, "is_damaged", lambda content: calls.append(content) or check(content))
    return calls


def damaged_photograph():
    content = photograph()
    return DAMAGES["lost"](content, len(content) // 2, None)


def test_damaged_files_are_named_once_and_unreadable_in_every_epoch(tmp_path, fresh, caplog):
    for i in range(7):
        write(tmp_path / f"{i}.jpg", photograph(quality=80 + i))
    write(tmp_path / "half grey é.jpg", damaged_photograph())
    split = open_folder(tmp_path, ALL).split("train")
    with caplog.at_level(logging.WARNING, "experiments"):
        epochs = training_batches(split, PREPROCESSING, 8, seed=0).take(3)
        assert [batch["weights"].sum() for batch in epochs.as_numpy_iterator()] == [7, 7, 7]
        (batch,) = evaluation_batches(split, PREPROCESSING, 8).as_numpy_iterator()
    names = [path.decode().rsplit("/")[-1] for path in split.contents]
    assert list(batch["weights"]) == [float("half" not in name) for name in names]
    (message,) = (record.getMessage() for record in caplog.records)
    assert message == f"{tmp_path / 'half grey é.jpg'} is a damaged JPEG and counts as unreadable."
    assert len(set(fresh)) == 8 and len(fresh) < 16  # in four epochs; twice where two are read at the same time


def test_only_some_of_many_damaged_files_are_named(tmp_path, fresh, caplog):
    for i in range(jpeg_damage.NAMED + 4):
        write(tmp_path / f"{i}.jpg", damaged_photograph())
    split = open_folder(tmp_path, ALL).split("train")
    with caplog.at_level(logging.WARNING, "experiments"):
        (batch,) = evaluation_batches(split, PREPROCESSING, jpeg_damage.NAMED + 4).as_numpy_iterator()
    assert not batch["weights"].any()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == jpeg_damage.NAMED and messages[-1].endswith("; further ones are not named.")


@pytest.mark.parametrize("kind", ["cached", "stream", "cached stream", "taken of a stream", "mix"])
def test_damage_is_found_whatever_the_images_come_from(tmp_path, fresh, kind):
    contents = [photograph(), damaged_photograph(), encode(gradient(9, 9))]
    for name, content in zip("abc", contents):
        write(tmp_path / f"{name}.jpg", content)
    split = open_folder(tmp_path, ALL).split("train")
    if "stream" in kind:
        split = StreamSplit(tf.data.Dataset.from_tensor_slices((contents, np.zeros(3, np.int64))), 3, 3)
    if "cached" in kind:
        split = split.cached("encoded")
    if "taken" in kind:
        split = split.take(np.arange(3))
    if kind == "mix":
        split = mix([Source(name, {"train": split}, ()) for name in ("one", "other")], [None, None]).split("train")
    (batch,) = evaluation_batches(split, PREPROCESSING, split.num_examples).as_numpy_iterator()
    assert list(batch["weights"]) == [1, 0, 1] * (split.num_examples // 3)
