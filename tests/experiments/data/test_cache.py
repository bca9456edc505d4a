"""With a cache everything is as without, and the disk is read once."""

import re

import numpy as np
import pytest

from experiments.config import DataConfig
from experiments.data import cache
from experiments.data.pipeline import evaluation_batches, training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import open_source
from experiments.data.splits import label_subset
from experiments.errors import UserError
from tests.experiments.data.sources.test_tfds import store
from tests.experiments.images import broken_inside, encode, gradient, write

PREPROCESSING = Preprocessing(8, 1, (0.0,), (1.0,), crop_scale=(0.3, 1.0))


@pytest.fixture
def sources(tmp_path):
    """`{kind: (source without cache, source with cache)}`."""
    for i in range(12):
        write(tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png", encode(np.roll(gradient(12, 12, 1), i)))
    noise = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    write(tmp_path / "pictures" / "a" / "broken.png", broken_inside(noise))
    store(tmp_path, "stored", {"train": 12, "test": 3})
    names = {"files": f"folder:{tmp_path / 'pictures'}", "stream": "tfds:stored"}
    names["mix"] = "+".join(names.values())
    others = {"dir": str(tmp_path), "shuffle_buffer": 5, "test_share": 0.0}
    return {
        kind: tuple(open_source(DataConfig(source=name, cache=cache, **others)) for cache in (False, True))
        for kind, name in names.items()
    }


def rows(batches, count):
    return list(batches.take(count).as_numpy_iterator())


@pytest.mark.parametrize("kind", ["stream", "mix"])
def test_the_batches_are_the_same_and_the_disk_is_read_once(sources, tmp_path, kind):
    plain, cached = (source.splits["train"] for source in sources[kind])
    expected = rows(training_batches(plain, PREPROCESSING, 5, 0, 1, 4), 4)
    held_out = rows(evaluation_batches(sources[kind][0].splits["validation"], PREPROCESSING, 4), 1)
    assert (kind == "mix") <= any((batch["weights"] == 0.0).any() for batch in expected)  # the broken file

    batches = training_batches(cached, PREPROCESSING, 5, 0, 1, 4)
    evaluation = evaluation_batches(sources[kind][1].splits["validation"], PREPROCESSING, 4)
    rows(batches, 1), rows(evaluation, 1)
    for path in [*tmp_path.rglob("*.png"), *tmp_path.rglob("*.tfrecord*")]:
        path.unlink()
    for actual, wanted in zip([*rows(batches, 4), *rows(evaluation, 1)], [*expected, *held_out]):
        assert actual.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_array_equal(actual[name], wanted[name], err_msg=name)


@pytest.mark.parametrize("kind", ["files", "stream"])
def test_labels_and_subsets_are_the_same(sources, kind):
    plain, cached = (source.splits["train"] for source in sources[kind])
    np.testing.assert_array_equal(cached.labels, plain.labels)
    one, other = (label_subset(split, "2 per class", 2 if kind == "files" else 3, 0) for split in (plain, cached))
    np.testing.assert_array_equal(one.contents, other.contents)
    one, other = (rows(training_batches(split, PREPROCESSING, 2, 0), 2) for split in (one, other))
    np.testing.assert_array_equal([b["images"] for b in one], [b["images"] for b in other])


def test_a_run_is_told_what_is_held(sources):
    assert sources["files"][1].notes[-1].startswith("held in memory once read: ")
    files = sources["files"][1].splits
    assert 13 * 100 < sum(split.num_bytes for split in files.values()) < 13 * 1000
    assert sources["stream"][1].splits["train"].num_bytes > 11 * 60


def test_what_does_not_fit_into_half_of_the_memory_is_refused(monkeypatch, sources):
    size = sum(split.num_bytes for split in sources["mix"][0].splits.values())
    monkeypatch.setattr(cache, "available_memory", lambda: 2 * size)
    cache.with_cache(sources["mix"][0])
    monkeypatch.setattr(cache, "available_memory", lambda: 2 * size - 1)
    message = "more than half of the 0.0 GiB of memory that are available: leave data.cache=False."
    with pytest.raises(UserError, match=re.escape(message)):
        cache.with_cache(sources["mix"][0])


def test_the_available_memory_is_found():
    assert 2**26 < cache.available_memory() < 2**46


@pytest.mark.parametrize(("limit", "available"), [("1000", 650), ("max", None)])
def test_in_a_container_files_that_were_read_take_no_memory(monkeypatch, tmp_path, limit, available):
    machine = cache.available_memory()
    for name, text in {"max": limit, "current": "750", "stat": "anon 100\ninactive_file 400\nfile 9\n"}.items():
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    monkeypatch.setattr(cache, "CONTAINER", tmp_path)
    found = cache.available_memory()
    assert found == available if available else abs(found - machine) < 0.2 * machine
