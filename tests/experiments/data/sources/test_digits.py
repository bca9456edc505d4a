"""scikit-learn's digits as a source, and how sources are split."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from experiments.config import DataConfig
from experiments.data.source import MemorySplit, Source
from experiments.data.sources import open_source
from experiments.data.sources.digits import open_digits
from experiments.data.splits import held_out
from experiments.errors import UserError
from tests.experiments.images import numbered


@pytest.fixture(scope="module")
def digits():
    return open_digits()


def test_the_parts_are_disjoint_and_complete(digits):
    sizes = {name: split.num_examples for name, split in digits.splits.items()}
    assert sizes == {"train": 1078, "validation": 180, "test": 539}
    # A few scans are alike, so the parts are compared as collections.
    together = sorted(content for split in digits.splits.values() for content in split.contents)
    assert len(together) == len(datasets.load_digits().target)
    counts = np.sum([np.bincount(split.labels, minlength=10) for split in digits.splits.values()], axis=0)
    np.testing.assert_array_equal(counts, np.bincount(datasets.load_digits().target))
    assert digits.class_names == tuple("0123456789")


def test_runs_of_a_process_share_what_is_decoded():
    one, other = (open_source(DataConfig()).split("train") for _ in range(2))
    assert one is other and one.cache == "auto" and one.cached("none").cache == "none"


def test_each_part_has_all_classes(digits):
    for split in digits.splits.values():
        assert np.bincount(split.labels, minlength=10).min() >= 0.05 * split.num_examples


def test_an_image_is_the_scan_enlarged_with_its_own_label(digits):
    scans = datasets.load_digits()
    split = digits.splits["test"]
    for content, label in list(zip(split.contents, split.labels))[:20]:
        image = Image.open(io.BytesIO(content))
        assert image.size == (32, 32) and image.mode == "L"
        small = np.asarray(image.resize((8, 8), Image.Resampling.BOX), "float64") / 255 * 16
        distances = np.abs(scans.images - small).mean(axis=(1, 2))
        assert distances.min() < 1.0
        assert scans.target[distances.argmin()] == label


def test_the_split_is_the_same_every_time(digits):
    for name, split in open_digits().splits.items():
        np.testing.assert_array_equal(split.contents, digits.splits[name].contents)


@pytest.mark.parametrize(
    ("count", "shares", "sizes"),
    [(100, (0.1, 0.3), [60, 10, 30]), (10, (0.0, 0.25), [8, 0, 2]), (7, (), [7]), (3, (0.1, 0.1), [3, 0, 0])],
)
def test_held_out_parts_are_disjoint_complete_and_sorted(count, shares, sizes):
    parts = held_out(count, shares)
    assert [len(part) for part in parts] == sizes
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(count))
    for part in parts:
        assert (np.diff(part) > 0).all()


def test_held_out_parts_are_drawn_at_random_and_always_the_same():
    one, again = held_out(50, (0.4,)), held_out(50, (0.4,))
    np.testing.assert_array_equal(one[1], again[1])
    assert set(one[1]) != set(range(30, 50)) and set(one[1]) != set(range(20))


def test_a_split_without_images_is_refused_and_the_others_are_named():
    full, empty = (MemorySplit(numbered(count), np.arange(count)) for count in (4, 0))
    source = Source("photos", {"train": full, "validation": empty}, ())
    assert source.split("train") is full and source.get("train") is full
    assert source.get("validation") is None and source.get("test") is None
    for name in ("validation", "test"):
        with pytest.raises(UserError, match=f"photos has no {name} images; it has train."):
            source.split(name)


def test_a_part_of_a_split_has_the_images_and_labels_at_its_indices():
    split = MemorySplit(numbered(10), np.arange(10) * 2).take(np.array([7, 2, 3]))
    np.testing.assert_array_equal(split.labels, [14, 4, 6])
    np.testing.assert_array_equal(split.contents, numbered(10)[[7, 2, 3]])
