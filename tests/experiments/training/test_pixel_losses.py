"""The losses of segmentation against loops in NumPy; pixels that do not count change no bit of them."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.errors import UserError
from experiments.training.losses import dice_losses, mean_cross_entropy, pixel_losses, weights_of_counts

WEIGHTS = np.array([0.5, 2.0, 1.0, 3.0], "float32")


def batch(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (3, 5, 6, 4)).astype("float32")
    labels = rng.integers(-1, 3, (3, 5, 6))  # the last class never occurs
    labels[2] = -1
    return logits, labels.astype("int32")


def shares_of(logits):
    exponentials = np.exp(logits.astype("float64") - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_the_mean_over_the_pixels_that_count(weights):
    logits, labels = batch()
    shares, expected = shares_of(logits), []
    for i in range(3):
        losses = [
            -np.log(shares[i, y, x, labels[i, y, x]]) * (1.0 if weights is None else weights[labels[i, y, x]])
            for y, x in np.argwhere(labels[i] >= 0)
        ]
        expected.append(np.mean(losses) if losses else 0.0)
    np.testing.assert_allclose(mean_cross_entropy(logits, labels, weights), expected, rtol=1e-5)


def test_dice_is_the_mean_over_the_classes_of_an_image():
    logits, labels = batch()
    shares, expected = shares_of(logits), []
    for i in range(3):
        counts = labels[i] >= 0
        dices = [
            (2 * shares[i, labels[i] == c, c].sum() + 1) / (shares[i, counts, c].sum() + (labels[i] == c).sum() + 1)
            for c in np.unique(labels[i][counts])
        ]
        expected.append(np.mean(1 - np.array(dices)) if dices else 0.0)
    np.testing.assert_allclose(dice_losses(logits, labels), expected, rtol=1e-5)


class Given:
    """Stands for a model: the image is its logits, and twice that those of the auxiliary head."""

    def call_with_auxiliary(self, images, training, frozen_encoder):
        assert training and not frozen_encoder
        return images, 2.0 * images


def test_what_is_said_of_ignored_pixels_changes_no_bit_of_loss_and_gradient():
    logits, labels = batch()
    losses = pixel_losses(Given(), WEIGHTS, dice_weight=0.5, auxiliary_weight=0.4)

    def loss_and_gradient(fill, ignored):
        images = tf.constant(np.where(labels[..., None] < 0, np.float32(fill), logits))
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = losses({"images": images, "labels": np.where(labels < 0, ignored, labels)})
        return loss.numpy(), tape.gradient(loss, images).numpy()

    expected = loss_and_gradient(0.0, -1)
    parts = [mean_cross_entropy(logits, labels, WEIGHTS), 0.5 * dice_losses(logits, labels)]
    parts.append(0.4 * mean_cross_entropy(2.0 * logits, labels, WEIGHTS))
    np.testing.assert_allclose(expected[0], np.sum(parts, axis=0), rtol=1e-6)
    assert not expected[1][labels < 0].any() and np.isfinite(expected[1]).all()
    for fill, ignored in ((50.0, -1), (np.inf, -1), (np.nan, -2)):
        for value, reference in zip(loss_and_gradient(fill, ignored), expected):
            np.testing.assert_array_equal(value, reference)


def test_balanced_weights_give_each_class_the_same_share():
    counts = np.array([10, 30, 60])
    weights = weights_of_counts(counts, "abc")
    np.testing.assert_allclose(weights * counts, [100 / 3] * 3, rtol=1e-6)
    with pytest.raises(UserError, match="needs training pixels of every class, and there are none of b: add"):
        weights_of_counts(np.array([1, 0, 2]), "abc")
