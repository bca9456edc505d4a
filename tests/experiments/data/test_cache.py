"""Whatever stays in memory, batches are the same, and the disk is read once."""

import dataclasses
import itertools
import re
import shutil

import numpy as np
import pytest

from experiments import provenance
from experiments.config import DataConfig
from experiments.data import cache
from experiments.data.augmentation.mixing import Mixing
from experiments.data.decoding import decode_and_crop
from experiments.data.pipeline import evaluation_batches, training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit
from experiments.data.sources import open_source
from experiments.data.splits import label_subset
from experiments.errors import UserError
from tests.experiments.data.sources.test_tfds import store
from tests.experiments.images import broken_inside, encode, gradient, write

HELD = ("encoded", "auto")
PREPROCESSING = Preprocessing(8, 1, (0.0,), (1.0,), crop_scale=(0.3, 1.0))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with another of pictures, one of them broken, and a prepared data set."""
    root = tmp_path_factory.mktemp("data")
    for i in range(12):
        write(root / "pictures" / "ab"[i % 2] / f"{i}.png", encode(np.roll(gradient(12, 12, 1), i)))
    noise = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    write(root / "pictures" / "a" / "broken.png", broken_inside(noise))
    store(root, "stored", {"train": 12, "test": 3})
    return root


def opened(data, kind, cache):
    names = {"files": f"folder:{data / 'pictures'}", "stream": "tfds:stored"}
    names["mix"] = "+".join(names.values())
    return open_source(DataConfig(source=names[kind], cache=cache, dir=str(data), shuffle_buffer=5, test_share=0.0))


def rows(batches, count):
    return list(batches.take(count).as_numpy_iterator())


@pytest.mark.parametrize("kind", ["stream", "mix"])
def test_the_batches_are_the_same_and_the_disk_is_read_once(data, tmp_path, kind):
    root = shutil.copytree(data, tmp_path / "data")

    def batches_of(cache):
        source = opened(root, kind, cache)
        return (
            training_batches(source.splits["train"], PREPROCESSING, 5, 0, 1, 4).take(4),
            evaluation_batches(source.splits["validation"], PREPROCESSING, 4).take(1),
        )

    expected = [row for batches in batches_of("none") for row in batches.as_numpy_iterator()]
    assert (kind == "mix") <= any((batch["weights"] == 0.0).any() for batch in expected)  # the broken file
    cached = {cache: batches_of(cache) for cache in HELD}
    for batches in itertools.chain.from_iterable(cached.values()):
        next(batches.as_numpy_iterator())
    for path in [*root.rglob("*.png"), *root.rglob("*.tfrecord*")]:
        path.unlink()
    for held in cached.values():
        found = [row for batches in held for row in batches.as_numpy_iterator()]
        for actual, wanted in zip(found, expected, strict=True):
            assert actual.keys() == wanted.keys()
            np.testing.assert_array_equal(actual["weights"], wanted["weights"])
            readable = wanted["weights"] > 0.0
            assert not actual["images"][~readable].any()
            for name in wanted:
                values = (row[name][readable] for row in (actual, wanted))
                np.testing.assert_allclose(*values, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("kind", "num_classes"), [("files", 2), ("stream", 3)])
def test_labels_and_subsets_are_the_same(data, kind, num_classes):
    plain, *cached = (opened(data, kind, cache).splits["train"] for cache in ("none", *HELD))
    wanted, *found = (label_subset(split, "2 per class", num_classes, 0) for split in (plain, *cached))
    images = [batch["images"] for batch in rows(training_batches(wanted, PREPROCESSING, 2, 0), 2)]
    for split, subset in zip(cached, found):
        np.testing.assert_array_equal(split.labels, plain.labels)
        np.testing.assert_array_equal(subset.contents, wanted.contents)
        batches = rows(training_batches(subset, PREPROCESSING, 2, 0), 2)
        np.testing.assert_allclose([batch["images"] for batch in batches], images, atol=1e-6)


def test_a_run_is_told_what_is_held(data):
    source = opened(data, "files", "encoded")
    assert source.notes[-1].startswith("kept in memory after the first read: ")
    assert 13 * 100 < sum(split.num_bytes for split in source.splits.values()) < 13 * 1000
    assert opened(data, "stream", "encoded").splits["train"].num_bytes > 11 * 60


def split_of(*sizes, kind="png", cache="auto"):
    """Pictures of some sizes."""
    contents = [encode(np.roll(gradient(*size), i, axis=1), kind) for i, size in enumerate(sizes)]
    return MemorySplit(np.array(contents, dtype=object), np.arange(len(sizes)) % 3, cache=cache)


AUGMENTED = Preprocessing(
    (24, 28), 3, (0.4, 0.5, 0.6), (0.2, 0.2, 0.3), 0.9, (0.3, 1.0), flip=True, erasing_probability=0.5
)
RANDAUGMENT = {"randaugment_magnitude": 9.0, "randaugment_noise": 0.5}
COLOR_JITTER = {"color_jitter": (0.4, 0.4, 0.4, 0.1)}


ONE_SIZE, SIZES = [(24, 28)] * 9, [(28 + 4 * i, 64 - 3 * i) for i in range(9)]


@pytest.mark.parametrize(
    ("sizes", "channels", "crop", "changes"),
    [
        (ONE_SIZE, 3, "padded", RANDAUGMENT),
        (ONE_SIZE, 1, "padded", COLOR_JITTER),
        (ONE_SIZE, 1, "resized", {}),
        (SIZES, 3, "resized", {}),
    ],
)
def test_whole_batches_in_memory_are_made_of_the_images_that_are_made_one_by_one(sizes, channels, crop, changes):
    """Changes of tones are tried on images that are not resized: they may round to whole values the other way."""
    colours = {"channels": channels, "mean": AUGMENTED.mean[:channels], "std": AUGMENTED.std[:channels]}
    preprocessing = dataclasses.replace(AUGMENTED, crop=crop, reading=None, **colours, **changes)
    mixing = Mixing(3, mixup_alpha=0.8, cutmix_alpha=1.0)
    memory, plain = split_of(*sizes), split_of(*sizes, cache="none")
    assert cache.decoded_images(memory, preprocessing) and not cache.decoded_images(plain, preprocessing)
    one_by_one, at_once = (
        [
            *rows(training_batches(split, preprocessing, 4, 5, 1, 6, mixing), 6),
            *rows(evaluation_batches(split, preprocessing, 4, num_patches=6), 3),
        ]
        for split in (plain, memory)
    )
    for expected, actual in zip(one_by_one, at_once):
        assert actual.keys() == expected.keys()
        for name in set(expected) - {"images"}:
            np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)
        np.testing.assert_allclose(actual["images"], expected["images"], rtol=0, atol=1e-5)


def test_only_small_images_are_decoded_by_default(monkeypatch):
    decoded = lambda split: cache.decoded_images(split, AUGMENTED)  # noqa: E731
    assert decoded(split_of((64, 64), (3, 9))).images.shape == (2, 64, 64, 3)
    assert decoded(split_of((64, 65), (3, 9))) is None
    late = [(30, 30)] * (cache.DECODED_AT_ONCE + 3)
    assert decoded(split_of(*late, (30, 70))) is None
    assert decoded(split_of(*late, (30, 70), cache="decoded")).images.shape == (20, 30, 70, 3)
    assert decoded(split_of((64, 64), cache="encoded")) is None
    monkeypatch.setattr(cache, "MOST", len(late) * 2700)
    assert decoded(split_of(*late)) is not None
    monkeypatch.setattr(cache, "MOST", len(late) * 2700 - 1)
    assert decoded(split_of(*late)) is None
    monkeypatch.setattr(cache, "available_memory", lambda: 1000)
    with pytest.raises(UserError, match="data.cache=decoded: 1 images of up to 20x30 pixels take 0.0 GiB, more than"):
        decoded(split_of((20, 30), cache="decoded"))


def test_images_are_decoded_once_for_all_that_reads_a_split():
    split = split_of((9, 9), (9, 8))
    decoded = cache.decoded_images(split, AUGMENTED)
    assert cache.decoded_images(split, dataclasses.replace(AUGMENTED, crop_scale=(0.5, 0.5))) is decoded
    assert cache.decoded_images(split, dataclasses.replace(AUGMENTED, channels=1, reading=None)).images.shape[-1] == 1
    assert cache.decoded_images(split.take(np.array([0])), AUGMENTED).sizes is None


def test_images_of_all_splits_are_decoded_by_a_graph_that_is_traced_once(monkeypatch):
    """Every start of a command waits for what is traced."""
    traced = []
    monkeypatch.setattr(
        "experiments.data.preprocessing.decode_and_crop",
        lambda *these, **those: traced.append(1) or decode_and_crop(*these, **those),
    )
    reading = dataclasses.replace(AUGMENTED.reading, max_pixels=1234)  # of this test alone
    for size in ((9, 9), (3, 4)):
        assert cache.decoded_images(split_of(size), dataclasses.replace(AUGMENTED, reading=reading))
    assert traced == [1]


def test_what_does_not_fit_into_half_of_the_memory_is_refused(monkeypatch, data):
    mix = opened(data, "mix", "none")
    size = sum(split.num_bytes for split in mix.splits.values())
    monkeypatch.setattr(cache, "available_memory", lambda: 2 * size)
    cache.with_cache(mix, "encoded")
    monkeypatch.setattr(cache, "available_memory", lambda: 2 * size - 1)
    message = "more than half of the 0.0 GiB of memory that are available: use data.cache=none."
    with pytest.raises(UserError, match=re.escape(message)):
        cache.with_cache(mix, "encoded")
    cache.with_cache(mix, "auto")


def test_the_available_memory_is_found():
    assert 2**26 < cache.available_memory() < 2**46


@pytest.mark.parametrize(("limit", "available"), [("1000", 650), ("max", None)])
def test_in_a_container_files_that_were_read_take_no_memory(monkeypatch, tmp_path, limit, available):
    machine = cache.available_memory()
    for name, text in {"max": limit, "current": "750", "stat": "anon 100\ninactive_file 400\nfile 9\n"}.items():
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    monkeypatch.setattr(provenance, "CONTAINER", tmp_path)
    found = cache.available_memory()
    assert found == available if available else abs(found - machine) < 0.2 * machine
