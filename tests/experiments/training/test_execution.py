"""Whatever is compiled and whatever is computed again: the same losses, gradients and random draws."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convnext.tf_cpu import fusion
from experiments.config import Config
from experiments.models import make_classifier, make_fcmae
from experiments.training.distributed.strategy import generator_states, make_strategy, per_replica_seeds
from experiments.training.losses import cross_entropy
from experiments.training.step import make_training_step
from fcmae.masking import sample_visible
from tests.experiments.tiny import TWO_STAGES, tiny_config
from tests.experiments.training.optimizers import SGD
from tests.small_models import randomize

BATCH = 4
RNG = np.random.default_rng(0)
DATA = {
    "images": RNG.normal(size=(BATCH, 32, 32, 1)).astype("float32"),
    "noise": RNG.random((BATCH, 16)).astype("float32"),
    "targets": np.eye(3, dtype="float32")[[0, 1, 2, 0]],
    "weights": np.array([1, 1, 0, 1], "float32"),
}


def losses_of(task, config):
    """The model of a task, and its losses."""
    if task == "finetune":
        model = make_classifier(config, 3)
        return model, cross_entropy(model)
    model = make_fcmae(config)

    def losses(batch):
        visible = sample_visible(batch["noise"], model.mask_ratio)
        return model.image_losses(batch["images"], visible, training=True)

    return model, losses


def outcome(task, replicas=1, parts=1, compilation="none", remat="none", execution="sparse"):
    """The losses, the updates and the states of the generators of two steps of rate 1."""
    config = tiny_config(
        model=TWO_STAGES,
        pretrain={"execution": execution},
        finetune={"drop_path_rate": 0.5},
    )
    keras.utils.set_random_seed(0)
    strategy = make_strategy(Config(logical_cpus=replicas))
    with strategy.scope():
        model, losses = losses_of(task, config)
        optimizer = SGD(0.5)
        optimizer.build(model.trainable_variables)
    randomize({variable.path: variable for variable in model.trainable_variables}, scale=0.3)
    before = [np.asarray(variable.value.numpy()) for variable in model.trainable_variables]
    per_replica_seeds(strategy, model)
    arguments = strategy, model, optimizer, losses, parts
    step = make_training_step(*arguments, compilation=compilation, remat=remat)
    data = tf.data.Dataset.from_tensor_slices(DATA).batch(BATCH, drop_remainder=True).repeat(2)
    found = [float(step(batch)["loss"]) for batch in strategy.experimental_distribute_dataset(data)]
    updates = {v.path: v.value.numpy() - old for v, old in zip(model.trainable_variables, before)}
    states = [copy.numpy() for state in generator_states(model) for copy in strategy.experimental_local_results(state)]
    return found, updates, states


@pytest.fixture(scope="module")
def plain():
    """Outcomes without XLA, in which all is kept, by (task, replicas, parts)."""
    found = {}

    def of(*key):
        if key not in found:
            found[key] = outcome(*key)
        return found[key]

    return of


WAYS = [
    ("pretrain", 1, 1, {"compilation": "chains", "remat": "block"}),
    ("pretrain", 1, 1, {"compilation": "step"}),
    ("pretrain", 1, 1, {"remat": "stage"}),
    ("pretrain", 1, 1, {"remat": "block", "execution": "dense"}),
    ("finetune", 2, 2, {"compilation": "chains"}),
    ("finetune", 2, 2, {"compilation": "step", "remat": "stage"}),
    ("finetune", 2, 2, {"remat": "block"}),
]


@pytest.mark.parametrize(("task", "replicas", "parts", "way"), WAYS, ids=str)
def test_losses_gradients_and_draws_are_the_same(plain, monkeypatch, task, replicas, parts, way):
    monkeypatch.setattr(fusion, "LEAST_VALUES", 1)
    losses, updates, states = outcome(task, replicas, parts, **way)
    expected_losses, expected_updates, expected_states = plain(task, replicas, parts)
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-5)
    for name, expected in expected_updates.items():
        np.testing.assert_allclose(updates[name], expected, rtol=0, atol=1e-5, err_msg=name)
    assert len(states) == len(expected_states)
    for state, expected in zip(states, expected_states):
        np.testing.assert_array_equal(state, expected)
