"""Data sets of TensorFlow Datasets, made on the spot and read by name."""

import dataclasses
import io
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from experiments.config import DataConfig
from experiments.data.augmentation.mixing import Mixing
from experiments.data.pipeline import evaluation_batches, training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.segmentation_pipeline import PairPreprocessing, evaluation_pairs, training_pairs
from experiments.data.sources import open_source
from experiments.data.splits import label_subset
from experiments.errors import UserError

COUNTS = {"train": 40, "validation": 6, "test": 10}
LABEL = tfds.features.ClassLabel(names=["cat", "dog", "newt"])
WHOLE = Preprocessing(8, 1, (0.0,), (1.0,))


def store(folder, name, splits=COUNTS, image="image", label=LABEL):
    """Prepares a data set whose k-th image is grey of value k, plus 100 in `test` and 200 in `validation`."""
    start = {"train": 0, "test": 100, "validation": 200, "unlabelled": 50}
    features = {image: tfds.features.Image(shape=(8, 8, 1)), **({"label": label} if label else {})}

    def examples(split, count):
        for k in range(count):
            labels = {"label": -1 if split == "unlabelled" else k % 3} if label else {}
            yield k, {image: np.full((8, 8, 1), start[split] + k, np.uint8), **labels}

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
    store(folder, "partly_labelled", {"train": 20, "test": 10, "unlabelled": 30})
    return folder


def open_tiny(folder, name, **arguments):
    return open_source(DataConfig(source=f"tfds:{name}", dir=str(folder), shuffle_buffer=40, **arguments))


def test_masks_of_a_data_set_follow_their_images(tmp_path):
    """A mask of 1, 2 and 3 whose class follows from the grey of its image; number 3 does not count."""
    features = {name: tfds.features.Image(shape=(8, 8, 1)) for name in ("image", "segmentation_mask")}
    masks = [np.full((8, 8, 1), 1 + k % 3, np.uint8) for k in range(12)]
    examples = [(k, {"image": np.full((8, 8, 1), 10 * k, np.uint8), "segmentation_mask": masks[k]}) for k in range(12)]
    tfds.dataset_builders.AdhocBuilder(
        name="masked",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": examples},
        data_dir=tmp_path,
    ).download_and_prepare()
    names = tmp_path / "names.txt"
    names.write_text("1 pet\n2 ground\n3 outline\n")
    data = DataConfig(source="tfds:masked", dir=str(tmp_path), class_names=str(names), ignore_label=(3,))
    source = open_source(data, masks=True)
    assert source.class_names == ("pet", "ground")
    pairs = PairPreprocessing(WHOLE)
    split = source.split("train")
    for part in (split, split.take(np.array([7, 2, 5]))):
        found = list(evaluation_pairs(part, source.masks, pairs).as_numpy_iterator())
        assert len(found) == part.num_examples
        for _, image, mask in found:
            number = round(25.5 * image[0, 0, 0]) % 3
            assert (mask == (-1 if number == 2 else number)).all()
    (batch,) = training_pairs(split, source.masks, pairs, 8, 0).take(1).as_numpy_iterator()
    numbers = (25.5 * batch["images"][:, 0, 0, 0]).round().astype(int) % 3
    np.testing.assert_array_equal(batch["labels"][:, 0, 0], np.where(numbers == 2, -1, numbers))
    for changes, message in (
        ({"class_names": ""}, "name a text file"),
        ({"mask_feature": "a"}, "has no image feature 'a' .data.mask_feature.; it has"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(dataclasses.replace(data, **changes), masks=True)


def values(split):
    """The grey values of a split, in its order, and the labels."""
    contents, labels = zip(*split.in_order().as_numpy_iterator())
    return np.array([Image.open(io.BytesIO(content)).getpixel((0, 0)) for content in contents]), np.array(labels)


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


SPLITS = ("train", "validation", "test", "pretrain")


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("all_splits", {"train_split": "train[:50%]"}, ("train[:20]", "validation", "test", None)),
        (
            "all_splits",
            {"train_split": "train[10:]+validation[:4]"},
            ("train[10:]+validation[:1]", "validation[1:4]", "test", None),
        ),
        (
            "only_train",
            {"train_split": "train[:20]", "validation_split": "train[20:25]", "test_split": "train[25:]"},
            ("train[:20]", "train[20:25]", "train[25:]", None),
        ),
        ("no_test", {"validation_split": "validation"}, ("train", "validation", None, None)),
        ("partly_labelled", {"pretrain_split": "unlabelled"}, ("train[:18]", "train[18:]", "test", "unlabelled")),
        (
            "partly_labelled",
            {"pretrain_split": "unlabelled+train[:90%]", "validation_split": "train[90%:]", "train_split": "train[:9]"},
            ("train[:9]", "train[18:]", "test", "unlabelled+train[:18]"),
        ),
        ("only_test", {"train_split": "test[:10]"}, ("test[:9]", "test[9:]", None, None)),
    ],
)
def test_splits_can_be_named_and_the_rule_gives_the_others(folder, name, fields, expected):
    source = open_tiny(folder, name, **fields)
    assert set(source.splits) == {part for part, spec in zip(SPLITS, expected) if spec}
    for part, spec in zip(SPLITS, expected):
        if spec:
            one_by_one = tfds.ReadConfig(interleave_cycle_length=1)
            stored = tfds.load(
                name,
                data_dir=folder,
                split=spec,
                download=False,
                read_config=one_by_one,
                decoders={"image": tfds.decode.SkipDecoding()},
            )
            wanted = [example["image"] for example in stored.as_numpy_iterator()]
            found = [content for content, _ in source.splits[part].in_order().as_numpy_iterator()]
            assert found == wanted, part


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_split": "extra"}, "data.train_split='extra' names a split that tfds:all_splits does not have; "),
        ({"test_split": "train[:9]+held"}, "data.test_split='train[:9]+held' names a split that tfds:all_splits does"),
        ({"train_split": "train[:x]"}, "data.train_split='train[:x]' is not in the syntax of TensorFlow Datasets"),
        ({"train_split": "train[:120%]"}, "data.train_split='train[:120%]' is not in the syntax of TensorFlow"),
        (
            {"train_split": "train[:41]"},
            "data.train_split='train[:41]' goes beyond the end of a split; tfds:all_splits has train (40 images), ",
        ),
        ({"train_split": "train[10:5]"}, "data.train_split='train[10:5]' ends before it begins: train[10:5]."),
        (
            {"test_split": "test+train[50%:20%]"},
            "data.test_split='test+train[50%:20%]' ends before it begins: train[20:8]",
        ),
        ({"train_split": "train+train"}, "names images twice: train[0:40] and train[0:40]."),
        ({"pretrain_split": "train[:9]+test+train[8:]"}, "names images twice: train[0:9] and train[8:40]."),
        (
            {"validation_split": "test[5:]", "test_split": "validation+test[:6]"},
            "tfds:all_splits: test[5:10] is for validation and overlaps test[0:6], which is for the test; name other",
        ),
        ({"validation_split": "train[5:5]"}, "data.validation_split='train[5:5]' holds no image."),
        (
            {"validation_split": "train[30:]"},
            "tfds:all_splits: train[0:40] is for training but overlaps train[30:40], which is for evaluation; name "
            "other",
        ),
        ({"pretrain_split": "test[:1]"}, "test[0:1] is for training but overlaps test[0:10], which is for evaluation"),
    ],
)
def test_splits_that_do_not_exist_or_overlap_are_refused(folder, fields, message):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        open_tiny(folder, "all_splits", **fields)
    if "names a split" in message:
        assert str(raised.value).endswith("tfds:all_splits has train, validation, test.")


def test_a_share_that_comes_to_no_image_is_noted_and_one_that_takes_all_is_refused(folder):
    source = open_tiny(folder, "only_train", validation_share=0.01)
    assert source.get("validation") is None and source.split("train").num_examples == 40
    assert source.notes == ("no validation images: data.validation_share=0.01 of 40 images comes to none",)
    assert open_tiny(folder, "only_train", validation_share=0.0).notes == ()
    message = "tfds:only_train: data.validation_share=0.89 leave none of 1 images to train on; make them smaller."
    with pytest.raises(UserError, match=re.escape(message)):
        open_tiny(folder, "only_train", train_split="train[:1]", validation_share=0.89)


def test_labels_outside_of_the_classes_count_as_missing(folder, tmp_path):
    """They weigh nothing in tasks with labels, and as much as others in tasks without."""
    store(tmp_path, "fewer_names")
    (names,) = tmp_path.glob("fewer_names/*/label.labels.txt")
    names.write_text("cat\ndog\n")
    (features,) = tmp_path.glob("fewer_names/*/features.json")
    features.write_text(features.read_text().replace('"numClasses": "3"', '"numClasses": "2"'))
    source = open_tiny(tmp_path, "fewer_names")
    assert source.num_classes == 2
    split = source.splits["test"]
    np.testing.assert_array_equal(split.labels, np.array([0, 1, -1])[(values(split)[0] - 100) % 3])
    labelled = (split.labels >= 0).astype("float32")
    for arguments, weights in (({}, np.ones(10)), ({"labelled": True}, labelled)):
        (batch,) = evaluation_batches(split, WHOLE, 10, **arguments).as_numpy_iterator()
        np.testing.assert_array_equal(batch["weights"], weights)
    for mixing in (None, Mixing(2)):
        batch = next(training_batches(split, WHOLE, 10, 0, mixing=mixing).as_numpy_iterator())
        assert (batch["labels"] < 0).sum() == 3
        np.testing.assert_array_equal(batch["weights"], (batch["labels"] >= 0) if mixing else np.ones(10))
    subset = label_subset(split, "100%", 2, seed=0)
    np.testing.assert_array_equal(np.bincount(subset.labels), [4, 3])


def test_images_come_with_their_labels_and_the_classes_with_their_names(folder):
    source = open_tiny(folder, "all_splits")
    assert source.class_names == ("cat", "dog", "newt") and source.name == "tfds:all_splits"
    (batch,) = evaluation_batches(source.splits["train"], WHOLE, 40).as_numpy_iterator()
    pixels, labels = (batch["images"][:, 0, 0, 0] * 255).round().astype(int), batch["labels"]
    for found, wanted in zip(values(source.splits["train"]), (pixels, labels)):
        np.testing.assert_array_equal(found, wanted)
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


def test_what_is_not_prepared_names_the_command_that_prepares_it(folder):
    with pytest.raises(UserError, match="or prepare it with `python -m launch.prepare --source=tfds:mnist`."):
        open_tiny(folder, "mnist")
