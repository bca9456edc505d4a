"""The picture of augmentation, pixel by pixel."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from experiments.data.augmentation.mixing import Mixing
from experiments.data.augmentation_picture import CELL, GAP, IMAGES, VERSIONS, augmented_examples, draw_augmentation
from experiments.data.pipeline import batch_seed, example_seed
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit, StreamSplit
from tests.experiments.images import encode, gradient, write

NAMES = ("cat", "dog", "newt")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.2, 0.3)
TOLERANCE = 0.0041  # values are cut off to multiples of 1 / 255
PREPROCESSING = Preprocessing(CELL, 3, MEAN, STD, crop_scale=(0.3, 1.0), flip=True, color_jitter=(0.4, 0.4, 0.4, 0.1))
MIXING = Mixing(3, mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1)
PICTURES = [encode(np.roll(gradient(90, 100), 9 * i, axis=1)) for i in range(10)]


def split_of(contents):
    return MemorySplit(np.array(contents, dtype=object), np.arange(len(contents)) % 3)


def order_of(split):
    return [(content, int(label)) for content, label in split.some(IMAGES, 5).as_numpy_iterator()]


def draw(path, split, preprocessing=PREPROCESSING):
    """The picture, `(H, W, 3)` in [0, 1]."""
    return draw_examples(path, augmented_examples(split, preprocessing, 5), preprocessing)


def draw_examples(path, examples, preprocessing=PREPROCESSING):
    draw_augmentation(path, examples, preprocessing, MIXING, NAMES, seed=5)
    return np.asarray(Image.open(path).convert("RGB")) / 255.0


def test_images_that_are_not_square_are_drawn_in_their_shape(tmp_path):
    preprocessing = dataclasses.replace(PREPROCESSING, image_size=(CELL // 2, CELL))
    examples = augmented_examples(split_of(PICTURES[:3]), preprocessing, 5)
    picture = draw_examples(tmp_path / "a.png", examples, preprocessing)
    assert picture.shape[:2] == (GAP + 3 * (CELL // 2 + GAP), (1 + VERSIONS) * (CELL + GAP))
    first = picture[GAP : GAP + CELL // 2, GAP // 2 :][:, :CELL]
    np.testing.assert_allclose(first, shown(examples[0][0]), atol=TOLERANCE)


def test_bright_images_that_are_drawn_smaller_draw_no_warning(tmp_path, caplog):
    white = np.broadcast_to((1 - np.float32(MEAN)) / np.float32(STD), (3, CELL + 11, CELL + 31, 3))
    draw_examples(tmp_path / "a.png", (white, np.stack([white] * VERSIONS, axis=1), np.arange(3)))
    assert not caplog.records


def cell(picture, column, row):
    top, left = GAP + row * (CELL + GAP), GAP // 2 + column * (CELL + GAP)
    return picture[top : top + CELL, left : left + CELL]


def shown(images):
    return np.clip(np.asarray(images) * STD + MEAN, 0.0, 1.0)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("picture") / "a.png", split_of(PICTURES))


def test_the_first_column_is_what_evaluation_sees(picture):
    for row, (content, _) in enumerate(order_of(split_of(PICTURES))):
        expected = shown(PREPROCESSING.for_evaluation(tf.constant(content)))
        np.testing.assert_allclose(cell(picture, 0, row), expected, atol=TOLERANCE)


@pytest.mark.parametrize("column", [1, VERSIONS])
def test_the_others_are_what_training_sees_mixed(picture, column):
    rows = order_of(split_of(PICTURES))
    images = [
        PREPROCESSING.for_training(tf.constant(content), example_seed(5, column - 1, row))
        for row, (content, _) in enumerate(rows)
    ]
    batch = {"images": tf.stack(images), "labels": [label for _, label in rows], "weights": tf.ones(len(rows))}
    expected = shown(MIXING(batch, batch_seed(5, column - 1, 0))["images"])
    for row in range(len(rows)):
        # But for values that are rounded the other way.
        assert (np.abs(cell(picture, column, row) - expected[row]) > TOLERANCE).mean() < 0.01


def test_captions_stand_below_their_images(picture):
    for row in range(IMAGES):
        below = GAP + row * (CELL + GAP) + CELL
        assert picture[below : below + GAP].min() < 0.5
    assert picture.shape[:2] == (GAP + IMAGES * (CELL + GAP), (1 + VERSIONS) * (CELL + GAP))


def test_images_of_a_stream_are_its_first():
    stream = StreamSplit(tf.data.Dataset.from_tensor_slices((PICTURES, np.arange(10))), 10, 10)
    np.testing.assert_array_equal(augmented_examples(stream, PREPROCESSING, 5)[2], np.arange(IMAGES))


def test_images_in_memory_are_drawn_over_all():
    labels = [label for _, label in order_of(MemorySplit(np.array(PICTURES * 9, dtype=object), np.arange(90)))]
    assert len(set(labels)) == IMAGES and max(labels) > 40


def test_few_files_and_broken_ones_make_a_smaller_picture_or_none(tmp_path):
    paths = [write(tmp_path / f"{i}.png", content) for i, content in enumerate([*PICTURES[:3], b"broken"])]
    split = split_of([str(path).encode() for path in paths])
    picture = draw(tmp_path / "a.png", dataclasses.replace(split, are_paths=True))
    assert picture.shape[0] == GAP + 3 * (CELL + GAP)
    assert augmented_examples(split_of([b"broken"] * 3), PREPROCESSING, 5) is None


@pytest.mark.parametrize("side", [32, 160])
def test_images_of_any_size_and_grey_ones_are_drawn(tmp_path, side):
    grey = Preprocessing(side, 1, (0.4,), (0.2,), randaugment_magnitude=9.0)
    picture = draw(tmp_path / "a.png", split_of(PICTURES[:2]), grey)
    assert picture.shape[0] == GAP + 2 * (CELL + GAP)
    np.testing.assert_array_equal(picture[..., 0], picture[..., 1])
    (content, _), _ = order_of(split_of(PICTURES[:2]))
    original = grey.for_evaluation(tf.constant(content)).numpy()[..., 0] * 0.2 + 0.4
    assert abs(cell(picture, 0, 0).mean() - original.mean()) < 0.01


def test_names_with_dollars_are_no_formulas(tmp_path):
    images = np.zeros((2, 4, 4, 3), np.float32)
    examples = images, np.stack([images] * VERSIONS, axis=1), np.array([0, 1])
    draw_augmentation(tmp_path / "a.png", examples, PREPROCESSING, Mixing(2), ("$\\nothing$", "dog"), seed=5)
    assert (tmp_path / "a.png").stat().st_size
