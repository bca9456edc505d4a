"""Data sets of TensorFlow Datasets, made on the spot and read by name."""

import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.config import DataConfig
from experiments.data.pipeline import Preparation, evaluation_batches, training_batches
from experiments.data.sources import open_source
from experiments.data.subset import label_subset
from experiments.errors import UserError

COUNTS = {"train": 40, "validation": 6, "test": 10}
LABEL = tfds.features.ClassLabel(names=["cat", "dog", "newt"])
WHOLE = Preparation(8, 1, (0.0,), (1.0,))


def store(folder, name, splits=COUNTS, image="image", label=LABEL):
    """Prepares a data set whose k-th image is grey of value k, plus 100 in `test` and 200 in `validation`."""
    start = {"train": 0, "test": 100, "validation": 200}
    features = {image: tfds.features.Image(shape=(8, 8, 1)), **({"label": label} if label else {})}
    classes = {"label": lambda k: k % 3} if label else {}

    def examples(split, count):
        for k in range(count):
            pixels = np.full((8, 8, 1), start[split] + k, np.uint8)
            yield k, {image: pixels, **{key: function(k) for key, function in classes.items()}}

    tfds.dataset_builders.AdhocBuilder(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={split: list(examples(split, count)) for split, count in splits.items()},
        data_dir=folder,
    ).download_and_prepare()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    store(folder, "all_splits")
    store(folder, "no_test", {"train": 40, "validation": 6})
    store(folder, "no_validation", {"train": 40, "test": 10}, label=None)
    store(folder, "only_train", {"train": 40}, label=tfds.features.Scalar(np.int64))
    store(folder, "only_test", {"test": 10})
    store(folder, "pictures", {"train": 4}, image="picture")
    return folder


def open_tiny(folder, name, **arguments):
    return open_source(DataConfig(source=f"tfds:{name}", dir=str(folder), shuffle_buffer=40, **arguments))


def values(split):
    """The grey values of a split, in its order."""
    (batch,) = evaluation_batches(split, WHOLE, split.num_examples).as_numpy_iterator()
    return (batch["images"][:, 0, 0, 0] * 255).round().astype(int), batch["labels"]


@pytest.mark.parametrize(
    ("name", "shares", "expected"),
    [
        ("all_splits", 0.1, {"train": (40, 0), "validation": (6, 200), "test": (10, 100)}),
        ("no_test", 0.1, {"train": (36, 0), "validation": (4, 0), "test": (6, 200)}),
        ("no_test", 0.0, {"train": (40, 0), "test": (6, 200)}),
        ("no_validation", 0.25, {"train": (30, 0), "validation": (10, 0), "test": (10, 100)}),
        ("only_train", 0.1, {"train": (36, 0), "validation": (4, 0)}),
    ],
)
def test_the_splits_are_those_of_the_data_set_with_a_share_held_out_where_it_lacks_one(folder, name, shares, expected):
    source = open_tiny(folder, name, validation_share=shares)
    assert {split: part.num_examples for split, part in source.splits.items()} == {
        split: count for split, (count, _) in expected.items()
    }
    found = {split: set(values(part)[0]) for split, part in source.splits.items()}
    for split, (count, start) in expected.items():
        assert len(found[split]) == count
        assert all(start <= value < start + 100 for value in found[split])
    if name != "all_splits" and shares:
        assert found["train"] | found["validation"] == set(range(40))


def test_images_come_with_their_labels_and_the_classes_with_their_names(folder):
    source = open_tiny(folder, "all_splits")
    assert source.class_names == ("cat", "dog", "newt") and source.name == "tfds:all_splits"
    pixels, labels = values(source.splits["train"])
    np.testing.assert_array_equal(labels, pixels % 3)
    np.testing.assert_array_equal(source.splits["train"].labels, labels)


@pytest.mark.parametrize("name", ["no_validation", "only_train"])
def test_without_class_labels_there_are_no_classes(folder, name):
    source = open_tiny(folder, name)
    assert source.class_names == () and source.num_classes == 0
    assert (values(source.splits["train"])[1] == -1).all()


def test_a_version_can_be_named(folder):
    assert open_tiny(folder, "all_splits:1.0.0").splits["test"].num_examples == 10


def test_training_sees_every_image_once_an_epoch_in_an_order_of_its_own(folder):
    split = open_tiny(folder, "all_splits").splits["train"]
    batches = training_batches(split, WHOLE, 10, seed=0).take(8)
    pixels = np.array([(batch["images"][:, 0, 0, 0] * 255).round() for batch in batches.as_numpy_iterator()])
    epochs = pixels.astype(int).reshape(2, 40)
    for epoch in epochs:
        assert sorted(epoch) == list(range(40))
    assert (epochs[0] != epochs[1]).mean() > 0.5
    tail = next(training_batches(split, WHOLE, 10, seed=0, start_step=5).as_numpy_iterator())
    np.testing.assert_array_equal((tail["images"][:, 0, 0, 0] * 255).round(), pixels[5])


def test_a_subset_of_a_stream_is_held_in_memory_with_its_own_images(folder):
    split = label_subset(open_tiny(folder, "all_splits").splits["train"], "4 per class", 3, seed=0)
    pixels, labels = values(split)
    np.testing.assert_array_equal(np.bincount(labels), [4, 4, 4])
    np.testing.assert_array_equal(labels, pixels % 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_thing", "TensorFlow Datasets knows no data set called 'no_such_thing' in {}."),
        ("mnist", "tfds:mnist is not prepared in {}"),
        ("pictures", "tfds:pictures has no feature called image; it has "),
        ("only_test", "tfds:only_test has no train split; it has test."),
        ("all_splits:7.7.7", "TensorFlow Datasets knows no data set called 'all_splits:7.7.7' in {}."),
    ],
)
def test_what_cannot_be_read_is_refused(folder, name, message):
    with pytest.raises(UserError, match=re.escape(message.format(folder))):
        open_tiny(folder, name)
