"""Whatever is compiled and whatever is computed again: the same losses, gradients and random draws.

The ways cover each pair of values of: what is compiled, what is computed again, the number of replicas and of parts,
and the precision.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convnext.tf_cpu import fusion
from experiments.config import Config
from experiments.models import make_classifier, make_fcmae
from experiments.training.distributed.strategy import generator_states, make_strategy, per_replica_seeds
from experiments.training.loss_scale import LossScale
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


def losses_of(task, config, precision):
    """The model of a task, and its losses."""
    if task == "finetune":
        model = make_classifier(config, 3, precision)
        return model, cross_entropy(model)
    model = make_fcmae(config, precision)

    def losses(batch):
        visible = sample_visible(batch["noise"], model.mask_ratio)
        return model.image_losses(batch["images"], visible, training=True)

    return model, losses


def outcome(task, precision, replicas, parts, compilation="none", remat="none", execution="sparse"):
    """The losses, the updates and the states of the generators of two steps of rate 0.5."""
    config = tiny_config(
        model=TWO_STAGES,
        pretrain={"execution": execution},
        finetune={"drop_path_rate": 0.5},
    )
    keras.utils.set_random_seed(0)
    strategy = make_strategy(Config(logical_cpus=replicas))
    with strategy.scope():
        model, losses = losses_of(task, config, precision)
        loss_scale = LossScale() if precision == "mixed_float16" else None
        if loss_scale:
            loss_scale.scale.assign(2.0**8)  # with which no gradient overflows
        optimizer = SGD(0.5)
        optimizer.build(model.trainable_variables)
    randomize({variable.path: variable for variable in model.trainable_variables}, scale=0.3)
    before = [np.asarray(variable.value.numpy()) for variable in model.trainable_variables]
    per_replica_seeds(strategy, model)
    arguments = strategy, model, optimizer, losses, parts
    step = make_training_step(*arguments, loss_scale=loss_scale, compilation=compilation, remat=remat)
    data = tf.data.Dataset.from_tensor_slices(DATA).batch(BATCH, drop_remainder=True).repeat(2)
    metrics = [step(batch) for batch in strategy.experimental_distribute_dataset(data)]
    assert not any(float(of_step.get("skipped_steps", 0.0)) for of_step in metrics)
    found = [float(of_step["loss"]) for of_step in metrics]
    updates = {v.path: v.value.numpy() - old for v, old in zip(model.trainable_variables, before)}
    states = [copy.numpy() for state in generator_states(model) for copy in strategy.experimental_local_results(state)]
    return found, updates, states


def error(updates, exact):
    """The relative error of the update of a variable, as root mean square over the variables."""
    errors = [np.linalg.norm(updates[name] - value) / np.linalg.norm(value) for name, value in exact.items()]
    return np.sqrt(np.mean(np.square(errors)))


@pytest.fixture(scope="module")
def plain():
    """Outcomes without XLA, in which all is kept, by (task, precision, replicas, parts)."""
    found = {}

    def of(*key):
        if key not in found:
            found[key] = outcome(*key)
        return found[key]

    return of


WAYS = [
    ("pretrain", "float32", 2, 1, {"compilation": "chains", "remat": "block"}),
    ("pretrain", "float32", 1, 1, {"compilation": "step"}),
    ("pretrain", "float32", 1, 2, {"remat": "stage"}),
    ("pretrain", "float32", 1, 1, {"remat": "block", "execution": "dense"}),
    ("finetune", "float32", 2, 2, {"compilation": "step", "remat": "stage"}),
    ("finetune", "float32", 2, 2, {"remat": "block"}),
    ("pretrain", "mixed_float16", 1, 1, {"compilation": "chains", "remat": "stage"}),
    ("pretrain", "mixed_float16", 1, 1, {"compilation": "step", "remat": "block"}),
    ("finetune", "mixed_float16", 2, 2, {"compilation": "chains", "remat": "block"}),
    ("finetune", "mixed_float16", 2, 2, {"compilation": "step"}),
]


@pytest.mark.parametrize(("task", "precision", "replicas", "parts", "way"), WAYS, ids=str)
def test_losses_gradients_and_draws_are_the_same(plain, monkeypatch, task, precision, replicas, parts, way):
    """In float16, compiled operations round at other places, but not more often: the errors are no larger."""
    monkeypatch.setattr(fusion, "LEAST_VALUES", 1)
    losses, updates, states = outcome(task, precision, replicas, parts, **way)
    division = (1, 1) if task == "pretrain" else (replicas, parts)  # which stochastic depth draws by
    exact_losses, exact, expected_states = plain(task, "float32", *division)
    assert updates.keys() == exact.keys()
    if precision == "float32":
        np.testing.assert_allclose(losses, exact_losses, rtol=0, atol=1e-5)
        for name, expected in exact.items():
            np.testing.assert_allclose(updates[name], expected, rtol=0, atol=1e-5, err_msg=name)
    else:
        np.testing.assert_allclose(losses, exact_losses, rtol=2 * 5 * 2.0**-11)  # rounded about 25 times, up and down
        _, rounded, _ = plain(task, precision, *division)
        assert 0.0 < error(updates, exact) < 2 * error(rounded, exact) < 0.1
    if division == (replicas, parts):
        np.testing.assert_array_equal(states, expected_states)
