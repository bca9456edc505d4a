"""Images and masks stay aligned, and batches of them are functions of (seed, epoch, position)."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from experiments.config import DataConfig
from experiments.data.preprocessing import Preprocessing
from experiments.data.segmentation_masks import IGNORED, ClassTable, Masks
from experiments.data.segmentation_pipeline import (
    PairPreprocessing,
    evaluation_pairs,
    pixel_counts,
    random_window,
    training_pairs,
    window_of_mask,
)
from experiments.data.source import MemorySplit
from experiments.data.sources import open_source
from tests.experiments.images import encode, write
from tests.experiments.scenes import write_scenes

GREY = Preprocessing((24, 32), 1, (0.0,), (1.0,), flip=True, color_jitter=(0.2, 0.0, 0.0, 0.0))
PAIRS = PairPreprocessing(GREY, (0.5, 2.0))
WHOLE = PairPreprocessing(Preprocessing((24, 32), 1, (0.0,), (1.0,), flip=True), (0.5, 2.0))
LEVELS = 5  # grey values of an image that is its own mask


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), height=st.integers(1, 70), width=st.integers(1, 70), number=st.integers(0, 2**31))
def test_an_image_that_is_its_own_mask_stays_it(seed, height, width, number):
    """Blocks of grey, at any size, scale, window and flip: where a pixel has no edge near it, image and mask agree."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, LEVELS, (-(-height // 8), -(-width // 8)))
    mask = np.kron(blocks, np.ones((8, 8), np.int32))[:height, :width].astype(np.int32)
    encoded = encode(Image.fromarray((mask * 50 + 20).astype(np.uint8)))
    image, found = WHOLE.for_training(tf.constant(encoded), tf.constant(mask), tf.constant([seed, 1], tf.int64))
    image, found = 255.0 * image.numpy()[..., 0], found.numpy()
    assert image.shape == found.shape == (24, 32)
    padded = np.pad(found, 4, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (9, 9))
    flat = (around == found[..., None, None]).all(axis=(2, 3)) & (found != IGNORED)
    np.testing.assert_allclose(image[flat], found[flat] * 50 + 20, atol=1.0)
    assert ((found >= 0) | (found == IGNORED)).all() and set(np.unique(found)) <= {IGNORED, *np.unique(mask)}


def test_half_of_the_pairs_are_mirrored():
    mask = np.zeros((24, 32), np.int32)
    mask[:, 16:] = 2
    encoded, crop = encode((mask * 50 + 20).astype(np.uint8)), PairPreprocessing(WHOLE.images)
    flipped = 0
    for seed in range(8):
        seed = tf.constant([seed, 1], tf.int64)
        image, found = crop.for_training(tf.constant(encoded), tf.constant(mask), seed)
        np.testing.assert_allclose(255.0 * image.numpy()[..., 0], found.numpy() * 50 + 20, atol=1e-3)
        flipped += found.numpy()[0, 0] == 2
    assert 0 < flipped < 8


def window(seed, size, crop):
    return random_window(tf.constant(size), crop, (0.5, 2.0), tf.constant([[seed, 3]], tf.int64)).numpy()


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    crop=st.tuples(st.integers(1, 64), st.integers(1, 64)),
)
def test_a_window_lies_in_the_image_or_holds_it(seed, size, crop):
    top, left, height, width = random_window(
        tf.constant(size), crop, (0.5, 2.0), tf.constant([[seed, 0]], tf.int64)
    ).numpy()
    for start, extent, side, wanted in ((top, height, size[0], crop[0]), (left, width, size[1], crop[1])):
        assert max(1, round(wanted / 2) - 1) <= extent <= 2 * wanted + 1
        assert (0 <= start <= side - extent) if extent <= side else (side - extent <= start <= 0)


def test_scales_are_log_uniform_and_places_uniform():
    windows = np.array(
        [
            random_window(tf.constant([200, 300]), (40, 40), (0.5, 2.0), tf.constant([[i, 3]], tf.int64))
            for i in range(600)
        ]
    )
    factors = np.log2(40 / windows[:, 2])
    assert abs(factors.mean()) < 0.07 and np.quantile(factors, [0.1, 0.9]) == pytest.approx([-0.8, 0.8], abs=0.1)
    shares = windows[:, :2] / (np.array([200, 300]) - windows[:, 2:])
    assert np.abs(shares.mean(axis=0) - 0.5).max() < 0.05 and shares.min() < 0.02 and shares.max() > 0.98


def test_outside_of_the_image_a_mask_is_ignored():
    mask = np.arange(6).reshape(2, 3)
    found = window_of_mask(tf.constant(mask, tf.int32), tf.constant([-1, 1, 4, 4]), (4, 8)).numpy()
    row = [[1, 1, 2, 2, -1, -1, -1, -1], [4, 4, 5, 5, -1, -1, -1, -1]]
    np.testing.assert_array_equal(found, [[-1] * 8, *row, [-1] * 8])


def test_outside_of_the_image_a_window_has_the_mean():
    preprocessing = PairPreprocessing(Preprocessing((24, 32), 1, (0.3,), (0.2,)), (1.0, 1.0))
    encoded, mask = tf.constant(encode(np.full((10, 40), 200, np.uint8))), tf.zeros((10, 40), tf.int32)
    image, found = preprocessing.for_training(encoded, mask, tf.constant([3, 1], tf.int64))
    outside = np.pad(found.numpy() == IGNORED, 3, mode="edge")
    far = np.lib.stride_tricks.sliding_window_view(outside, (7, 7)).all(axis=(2, 3))
    assert far.sum() > 100
    np.testing.assert_allclose(image.numpy()[far], 0.0, atol=1e-5)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = write_scenes(tmp_path_factory.mktemp("scenes"), train=7)
    return open_source(
        DataConfig(source=f"folder:{root}", channels=1, mean=(0.0,), std=(1.0,), ignore_label=(250,)), True
    )


def stack(batches):
    rows = list(batches.as_numpy_iterator())
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def test_batches_are_functions_of_seed_and_step(source):
    def take(count, seed=0, start_step=0, shard=0, num_shards=1):
        batches = training_pairs(source.split("train"), source.masks, PAIRS, 2, seed, start_step, shard, num_shards)
        return stack(batches.take(count))

    everything = take(7)
    assert everything["images"].shape == (7, 2, 24, 32, 1) and everything["labels"].dtype == np.int32
    later = take(3, start_step=4)
    shards = [take(7, shard=i, num_shards=2) for i in range(2)]
    for name, values in everything.items():
        np.testing.assert_array_equal(later[name], values[4:])
        np.testing.assert_array_equal(np.concatenate([shard[name] for shard in shards], axis=1), values)
    assert not np.array_equal(take(1, seed=1)["labels"], everything["labels"][:1])
    assert set(np.unique(everything["labels"])) == {-1, 0, 1, 2}


def test_evaluation_sees_whole_images_and_masks_in_order(source):
    split = source.split("test")
    found = list(evaluation_pairs(split, source.masks, PAIRS).as_numpy_iterator())
    assert [position for position, _, _ in found] == [0, 1, 2, 3]
    assert {image.shape for _, image, _ in found} == {(40, 48, 1)} and {mask.shape for *_, mask in found} == {(40, 48)}
    counts = sum(np.bincount(mask[mask >= 0], minlength=3) for *_, mask in found)
    np.testing.assert_array_equal(pixel_counts(split, source.masks), counts)


def test_an_example_that_breaks_after_the_start_has_weight_0(tmp_path):
    images = np.array([encode(np.full((8, 8), 10 * i, np.uint8)) for i in range(4)], dtype=object)
    good = encode(np.ones((8, 8), np.uint8))
    files = [good, b"damaged", encode(np.ones((8, 9), np.uint8)), encode(np.full((8, 8), 7, np.uint8))]
    paths = np.array([str(write(tmp_path / f"{i}.png", file)).encode() for i, file in enumerate(files)], dtype=object)
    masks = Masks(ClassTable(("a", "b"), (0, 1)), paths)
    split = MemorySplit(images, np.arange(4), unchecked=True)
    (batch,) = training_pairs(split, masks, PAIRS, 4, seed=0).take(1).as_numpy_iterator()
    assert sorted(batch["weights"]) == [0, 0, 0, 1]
    left_out = batch["weights"] == 0
    assert not batch["images"][left_out].any() and (batch["labels"][left_out] == IGNORED).all()
    ((position, _, mask),) = evaluation_pairs(split, masks, PAIRS).as_numpy_iterator()
    assert position == 0 and (mask == 1).all()
