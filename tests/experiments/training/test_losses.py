"""The loss of fine-tuning beside NumPy: class weights, and the frozen encoder."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from convnext import ConvNeXtV2
from experiments.errors import UserError
from experiments.models import make_classifier
from experiments.training.losses import balanced_class_weights, cross_entropy
from tests.comparison import assert_close, gradients
from tests.experiments.tiny import TWO_STAGES, tiny_config
from tests.small_models import random_images, randomize, variables_of

WEIGHTS = np.array([0.5, 2.0, 1.25], "float32")
LOGITS = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
SOFT = np.random.default_rng(1).dirichlet(np.ones(3), 6).astype("float32")  # as mixed and smoothed labels are
HARD = np.eye(3, dtype="float32")[[0, 1, 2, 2, 1, 0]]


def log_shares(logits):
    return logits - np.log(np.exp(logits.astype("float64")).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("targets", [HARD, SOFT], ids=["hard", "soft"])
def test_the_loss_weighs_the_targets_and_so_does_its_gradient(targets):
    logits = tf.constant(LOGITS)
    losses = cross_entropy(lambda images, training: images, WEIGHTS)
    expected = -(WEIGHTS * targets * log_shares(LOGITS)).sum(axis=1)
    np.testing.assert_allclose(losses({"images": logits, "targets": targets}), expected, rtol=1e-5)
    (gradient,) = gradients(lambda: tf.reduce_sum(losses({"images": logits, "targets": targets})), [logits])
    weighted = WEIGHTS * targets
    expected = np.exp(log_shares(LOGITS)) * weighted.sum(axis=1, keepdims=True) - weighted
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_labelled_example_is_multiplied_by_the_weight_of_its_class():
    plain, weighted = (cross_entropy(lambda images, training: images, weights) for weights in (None, WEIGHTS))
    batch = {"images": LOGITS, "targets": HARD}
    np.testing.assert_allclose(weighted(batch), plain(batch) * WEIGHTS[HARD.argmax(axis=1)], rtol=1e-5)


def test_balanced_weights_are_those_of_scikit_learn_and_have_a_mean_of_1():
    labels = np.random.default_rng(0).choice(4, 200, p=[0.7, 0.2, 0.06, 0.04])
    weights = balanced_class_weights(labels, ("a", "b", "c", "d"))
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.arange(4), y=labels), rtol=1e-6)
    assert weights[labels].mean() == pytest.approx(1.0, rel=1e-6)
    np.testing.assert_array_equal(balanced_class_weights(np.append(labels, [-1, -1]), ("a", "b", "c", "d")), weights)
    totals = weights * np.bincount(labels)
    np.testing.assert_allclose(totals, np.full(4, 50.0), rtol=1e-6)


SETS = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 1], [1, 1, 1]], bool)
MULTI_WEIGHTS = np.array([[0.5, 1.5, 1.0], [2.0, 0.75, 3.0]], "float32")


@pytest.mark.parametrize("weights", [None, MULTI_WEIGHTS], ids=["plain", "weighted"])
def test_the_multi_label_loss_is_the_mean_of_binary_cross_entropies_and_so_is_its_gradient(weights):
    targets = np.random.default_rng(2).uniform(size=LOGITS.shape).astype("float32")  # as mixed labels are
    logits = tf.constant(LOGITS)
    losses = cross_entropy(lambda images, training: images, weights, multi_label=True)
    without, having = (1.0, 1.0) if weights is None else weights.astype("float64")
    shares = 1 / (1 + np.exp(-LOGITS.astype("float64")))
    expected = -(having * targets * np.log(shares) + without * (1 - targets) * np.log(1 - shares)).mean(axis=1)
    np.testing.assert_allclose(losses({"images": logits, "targets": targets}), expected, rtol=1e-5)
    (gradient,) = gradients(lambda: tf.reduce_sum(losses({"images": logits, "targets": targets})), [logits])
    expected = (without * (1 - targets) * shares - having * targets * (1 - shares)) / 3
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_the_multi_label_loss_of_large_logits_is_finite():
    losses = cross_entropy(lambda images, training: images, multi_label=True)
    found = losses({"images": np.array([[200.0, -200.0]], "float32"), "targets": np.array([[0.0, 1.0]], "float32")})
    np.testing.assert_allclose(found, [200.0], rtol=1e-6)


def test_balanced_weights_of_several_classes_are_those_of_scikit_learn_class_by_class():
    labels = np.random.default_rng(0).choice(4, 200, p=[0.6, 0.2, 0.15, 0.05])
    weights = balanced_class_weights(np.append(labels, [-1, -1]), ("a", "b", "c"), SETS)
    for i in range(3):
        expected = compute_class_weight("balanced", classes=np.arange(2), y=SETS[labels, i].astype(int))
        np.testing.assert_allclose(weights[:, i], expected, rtol=1e-6)


@pytest.mark.parametrize("labels", [[0, 0, 3], [0, 1, 0]], ids=["b and c of all", "a of none"])
def test_balanced_weights_of_several_classes_need_images_with_and_without_each(labels):
    names = "b, c" if 3 in labels else "a"
    message = f"with and without every class, but all or none have {names}: add --config.finetune.class"
    with pytest.raises(UserError, match=message):
        balanced_class_weights(np.array(labels), ("a", "b", "c"), SETS)


def test_balanced_weights_need_images_of_every_class():
    with pytest.raises(UserError, match="there are none of b, d: add --config.finetune.class_weights=none."):
        balanced_class_weights(np.array([0, 2, 2]), ("a", "b", "c", "d"))


def test_the_frozen_encoder_is_in_inference_mode_and_gets_no_gradient():
    arguments = {"input_shape": (8, 8, 1), "num_classes": 3, "stem_stride": 2}
    noisy, quiet = (ConvNeXtV2((2,), (4,), drop_path_rate=rate, **arguments) for rate in (0.9, 0.0))
    values = randomize(variables_of(noisy))
    for name, variable in variables_of(quiet).items():
        variable.assign(values[name])
    batch = {"images": random_images(6, 8, 8, 1), "targets": SOFT}
    losses = cross_entropy(noisy, frozen_encoder=True)
    expected = -(SOFT * log_shares(np.asarray(quiet(batch["images"])))).sum(axis=1)
    np.testing.assert_allclose(losses(batch), expected, rtol=1e-4)

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(losses(batch))
    found = tape.gradient(loss, [variable.value for variable in noisy.trainable_variables])
    paths = [variable.path.split("/", 1)[1] for variable in noisy.trainable_variables]
    reached = {path for path, gradient in zip(paths, found) if gradient is not None}
    assert reached == {"head_norm/gamma", "head_norm/beta", "head/kernel", "head/bias"}
    share = np.exp(log_shares(np.asarray(quiet(batch["images"]))))
    assert_close(found[paths.index("head/bias")], (share - SOFT).sum(axis=0), 1e-4)


def test_of_a_classifier_with_a_frozen_encoder_the_logits_alone_train():
    model = make_classifier(tiny_config(model=TWO_STAGES, finetune={"frozen_encoder": True}), 3)
    paths = [variable.path for variable in model.trainable_variables]
    assert paths == ["classifier/head/kernel", "classifier/head/bias"]
