"""Mixup and CutMix beside NumPy: shares, boxes, pixels and targets."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from experiments.config import FinetuneConfig
from experiments.data.augmentation import mixing
from experiments.data.augmentation.mixing import Mixing

CLASSES, SIZE = 7, (24, 20)
MIXINGS = {
    "mixup": Mixing(CLASSES, mixup_alpha=0.8),
    "cutmix": Mixing(CLASSES, cutmix_alpha=1.0),
    "both": Mixing(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0),
    "smoothed": Mixing(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.2),
}
SEEDS = [tf.constant((11, i), tf.int64) for i in range(20)]


def make_batch(count, unreadable=()):
    rng = np.random.default_rng(count)
    batch = {
        "images": rng.normal(size=(count, *SIZE, 3)).astype("float32"),
        "labels": rng.integers(0, CLASSES, count),
        "weights": np.ones(count, "float32"),
    }
    for i in unreadable:
        batch["images"][i], batch["labels"][i], batch["weights"][i] = 0.0, 0, 0.0
    return {name: tf.constant(value) for name, value in batch.items()}


def one_hot(labels, smoothing):
    targets = np.full((len(labels), CLASSES), smoothing / CLASSES)
    targets[np.arange(len(labels)), labels] += 1 - smoothing
    return targets


def draw_shares(a_mixing, count, size=SIZE):
    """`(share, own)` of many seeds."""

    @tf.function(autograph=False)
    def draw():
        seeds = tf.range(count, dtype=tf.int64)
        one = lambda i: a_mixing.draw_shares(size, tf.stack([2, i]))  # noqa: E731
        return tf.map_fn(one, seeds, fn_output_signature=(tf.float32, tf.float32))

    share, own = draw()
    return share.numpy(), own.numpy()[..., 0]


@pytest.mark.parametrize("count", [6, 5])
@pytest.mark.parametrize("name", MIXINGS)
def test_each_image_is_mixed_with_the_one_in_the_opposite_place(name, count):
    batch = make_batch(count)
    images, labels = batch["images"].numpy().astype("float64"), batch["labels"].numpy()
    targets = one_hot(labels, MIXINGS[name].label_smoothing)
    for seed in SEEDS:
        mixed = MIXINGS[name](batch, seed)
        share, own = (value.numpy().astype("float64") for value in MIXINGS[name].draw_shares(SIZE, seed))
        np.testing.assert_allclose(mixed["images"], own * images + (1 - own) * images[::-1], atol=1e-6)
        np.testing.assert_allclose(mixed["targets"], share * targets + (1 - share) * targets[::-1], atol=1e-6)
        assert mixed["images"].dtype == mixed["targets"].dtype == "float32"
        for kept in ("labels", "weights"):
            np.testing.assert_array_equal(mixed[kept], batch[kept])


@pytest.mark.parametrize("name", MIXINGS)
def test_targets_sum_to_one_and_match_the_share_of_the_pixels(name):
    """Image i has the value i and the class i: what is in the mixture can be read off."""
    count, smoothing = 6, MIXINGS[name].label_smoothing
    places = np.arange(count)
    images = np.broadcast_to(places.reshape(-1, 1, 1, 1), (count, *SIZE, 3)).astype("float32")
    batch = {"images": tf.constant(images), "labels": tf.constant(places), "weights": tf.ones(count)}
    shares = set()
    for seed in SEEDS:
        mixed = MIXINGS[name](batch, seed)
        np.testing.assert_allclose(mixed["targets"].numpy().sum(axis=1), 1.0, atol=1e-6)
        values = mixed["images"].numpy().mean(axis=(1, 2, 3), dtype="float64")
        partner = places[::-1]
        own = (values - partner) / (places - partner)
        own = own[:, np.newaxis]
        expected = own * one_hot(places, smoothing) + (1 - own) * one_hot(partner, smoothing)
        np.testing.assert_allclose(mixed["targets"], expected, atol=1e-6)
        shares.add(round(float(own[0, 0]), 6))
    assert len(shares) > 15


@pytest.mark.parametrize("name", MIXINGS)
def test_an_image_whose_partner_cannot_be_read_stays_as_it_is(name):
    unreadable = (1, 2, 3)
    batch = make_batch(6, unreadable)
    targets = one_hot(batch["labels"].numpy(), MIXINGS[name].label_smoothing)
    changed = 0
    for seed in SEEDS:
        mixed = MIXINGS[name](batch, seed)
        np.testing.assert_allclose(mixed["images"][4], batch["images"][4], atol=1e-6)
        np.testing.assert_allclose(mixed["targets"][4], targets[4], atol=1e-6)
        np.testing.assert_array_equal(mixed["weights"], batch["weights"])
        changed += np.abs(mixed["images"][0] - batch["images"][0]).max() > 1e-3  # its partner can be read
    assert changed > 15


SETS = np.random.default_rng(3).integers(0, 2, (5, CLASSES)).astype(bool)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_targets_of_several_classes_are_smoothed_sets_and_mixed_as_others_are(smoothing):
    batch = make_batch(6, unreadable=(1,))
    batch["labels"] = tf.constant([4, -1, 0, 1, 4, 2], tf.int64)
    targets = np.where(SETS[[4, 0, 0, 1, 4, 2]], 1 - smoothing / 2, smoothing / 2)
    mixing = Mixing(CLASSES, label_smoothing=smoothing, label_sets=SETS)
    np.testing.assert_allclose(mixing(batch, SEEDS[0])["targets"].numpy()[2:], targets[2:], atol=1e-7)
    for seed in SEEDS:
        mixed = dataclasses.replace(mixing, mixup_alpha=0.8, cutmix_alpha=1.0)
        share = float(mixed.draw_shares(SIZE, seed)[0])
        expected = share * targets + (1 - share) * targets[::-1]
        expected[4] = targets[4]  # whose partner cannot be read
        found = mixed(batch, seed)["targets"].numpy()
        np.testing.assert_allclose(found[[0, 2, 3, 4, 5]], expected[[0, 2, 3, 4, 5]], atol=1e-6)


def test_without_mixing_targets_are_smoothed_labels():
    batch = make_batch(5)
    for probability in (0.0, 1.0):
        result = Mixing(CLASSES, mix_probability=probability, label_smoothing=0.3)(batch, SEEDS[0])
        np.testing.assert_array_equal(result["images"], batch["images"])
        np.testing.assert_allclose(result["targets"], one_hot(batch["labels"].numpy(), 0.3), atol=1e-7)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_shares_of_mixup_follow_the_beta_distribution(alpha):
    share, own = draw_shares(Mixing(CLASSES, mixup_alpha=alpha), 2000)
    assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    np.testing.assert_array_equal(own, np.broadcast_to(share[:, np.newaxis, np.newaxis], own.shape))


@pytest.mark.parametrize("size", [(12, 10), (7, 33)])
def test_the_box_of_cutmix_is_the_one_of_its_share_clipped_at_the_border(size):
    for i, share in enumerate(np.linspace(0.0, 1.0, 41)):
        seed = tf.constant((3, i), tf.int64)
        box = mixing._box(size, tf.constant(share, tf.float64), seed).numpy()[..., 0]
        expected, edges = np.zeros(size), []
        for length, draw in zip(size, tf.random.stateless_uniform([2], seed).numpy().astype("float64")):
            side, centre = int(length * math.sqrt(1 - share)), int(length * draw)
            edges.append((max(0, centre - side // 2), min(length, centre + side // 2)))
        (top, bottom), (left, right) = edges
        expected[top:bottom, left:right] = 1
        np.testing.assert_array_equal(box, expected)


def test_shares_of_cutmix_are_those_of_the_pixels():
    share, own = draw_shares(MIXINGS["cutmix"], 2000, (20, 20))
    assert set(np.unique(own)) == {0.0, 1.0}
    np.testing.assert_allclose(share, own.mean(axis=(1, 2), dtype="float64"), atol=1e-7)
    # Without clipping it would follow Beta(1, 1), whose mean is a half; clipping can only leave more of an image.
    assert 0.6 < share.mean() < 0.8 and share.min() < 0.25 and share.max() == 1.0


def test_a_batch_is_mixed_and_switched_with_their_probabilities():
    both = Mixing(CLASSES, 0.8, 1.0, mix_probability=0.6, switch_probability=0.3)
    share, own = draw_shares(both, 2000)
    cut = np.isin(own, [0.0, 1.0]).all(axis=(1, 2)) & (own.min(axis=(1, 2)) == 0.0)
    blended = (own.min(axis=(1, 2)) > 0.0) & (own.max(axis=(1, 2)) < 1.0)
    assert abs(blended.mean() - 0.6 * 0.7) < 0.03
    # Boxes of less than two pixels are empty.
    assert 0.6 * 0.3 - 0.06 < cut.mean() < 0.6 * 0.3 + 0.02
    np.testing.assert_array_equal(share[~cut & ~blended], 1.0)


def test_mixing_takes_its_values_from_the_configuration():
    config = FinetuneConfig(
        mixup_alpha=0.1, cutmix_alpha=0.2, mix_probability=0.3, switch_probability=0.4, label_smoothing=0.5
    )
    assert Mixing.of(config, 9) == Mixing(9, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert not (Mixing.of(FinetuneConfig(), 9).mixup_alpha or Mixing.of(FinetuneConfig(), 9).cutmix_alpha)
