"""One optimizer step beside NumPy: the gradient of the weighted mean over the whole batch, clipped as a whole."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.config import Config
from experiments.training.distributed.strategy import make_strategy
from experiments.training.step import make_training_step
from tests.experiments.training.optimizers import SGD

INPUTS = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
TARGETS = np.random.default_rng(1).normal(size=8).astype("float32")
KERNEL, BIAS = np.array([[0.5], [-1.0], [2.0]], "float32"), np.array([0.25], "float32")
ALL = np.ones(8, "float32")
SOME = np.array([1, 0, 1, 1, 0, 0, 1, 1], "float32")


def reference(inputs, targets, weights):
    """Loss and gradients of the linear model under the squared error."""
    error = (inputs @ KERNEL)[:, 0] + BIAS - targets
    total = max(weights.sum(), 1.0)
    kernel = (2 * weights * error) @ inputs / total
    return (weights * error**2).sum() / total, kernel[:, None], np.array([(2 * weights * error).sum() / total])


def take_step(inputs=INPUTS, targets=TARGETS, weights=ALL, replicas=1, parts=1, clip_norm=0.0):
    """Returns the metrics and the update of a step of rate 1, `(kernel, bias)`, with its sign turned."""
    strategy = make_strategy(Config(logical_cpus=replicas, distribution="auto"))
    assert strategy.num_replicas_in_sync == replicas
    with strategy.scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="dense")])
        optimizer = SGD(1.0)
        optimizer.build(model.trainable_variables)
    model.set_weights([KERNEL, BIAS])

    def example_losses(batch):
        return tf.square(model(batch["inputs"])[:, 0] - batch["targets"])

    step = make_training_step(strategy, model, optimizer, example_losses, parts, clip_norm)
    batch = {"inputs": inputs, "targets": targets, "weights": weights}
    data = tf.data.Dataset.from_tensor_slices(batch).batch(len(weights), drop_remainder=True)
    metrics = step(next(iter(strategy.experimental_distribute_dataset(data))))
    after = model.get_weights()
    return {name: float(value) for name, value in metrics.items()}, (KERNEL - after[0], BIAS - after[1])


@pytest.mark.parametrize("weights", [ALL, SOME], ids=["all", "some"])
@pytest.mark.parametrize(("replicas", "parts"), [(1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4)])
def test_loss_and_update_are_those_of_the_whole_batch(replicas, parts, weights):
    metrics, update = take_step(weights=weights, replicas=replicas, parts=parts)
    loss, *gradients = reference(INPUTS, TARGETS, weights)
    assert set(metrics) == {"loss", "unreadable"}
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["unreadable"] == 8 - weights.sum()
    for actual, expected in zip(update, gradients):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("replicas", "parts"), [(1, 1), (1, 4), (2, 1), (2, 2)])
@pytest.mark.parametrize("share", [0.1, 0.9, 1.1])
def test_the_norm_of_the_whole_gradient_is_clipped(replicas, parts, share):
    loss, *gradients = reference(INPUTS, TARGETS, SOME)
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    limit = float(share * norm)
    metrics, update = take_step(weights=SOME, replicas=replicas, parts=parts, clip_norm=limit)
    assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    for actual, expected in zip(update, gradients):
        np.testing.assert_allclose(actual, expected * min(1.0, limit / norm), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_examples_of_weight_0_do_not_count_whatever_they_hold(clip_norm):
    kept = SOME > 0
    _, expected = take_step(INPUTS[kept], TARGETS[kept], SOME[kept], clip_norm=clip_norm)
    wild = np.where(kept[:, None], INPUTS, 1e6).astype("float32")
    _, update = take_step(wild, TARGETS, SOME, clip_norm=clip_norm)
    for actual, other in zip(update, expected):
        np.testing.assert_allclose(actual, other, rtol=1e-5)


def test_a_batch_of_unreadable_examples_changes_nothing():
    metrics, update = take_step(weights=0 * ALL, clip_norm=1.0)
    assert metrics == {"loss": 0.0, "unreadable": 8.0, "gradient_norm": 0.0}
    assert not update[0].any() and not update[1].any()


def test_one_device_with_all_unreadable_examples_does_not_count():
    weights = np.array([1, 1, 1, 1, 0, 0, 0, 0], "float32")
    _, update = take_step(weights=weights, replicas=2)
    _, *gradients = reference(INPUTS[:4], TARGETS[:4], weights[:4])
    for actual, expected in zip(update, gradients):
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
