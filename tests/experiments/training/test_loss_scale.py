"""float16: an overflow halves the loss scale and changes nothing else, on every device; a real NaN ends the run."""

import dataclasses
import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments import finetune, pretrain
from experiments.config import Config, PretrainConfig
from experiments.errors import RunError
from experiments.optim.adamw import make_adamw
from experiments.optim.param_groups import rule_table
from experiments.training import loss_scale
from experiments.training.checkpoint import Checkpoints
from experiments.training.distributed.strategy import choose_precision, make_strategy
from experiments.training.ema import AveragedWeights
from experiments.training.loggers import read_metrics
from experiments.training.loss_scale import INITIAL, LossScale
from experiments.training.schedule import Schedule
from experiments.training.step import make_training_step
from experiments.training.workdir import read_json
from tests.experiments.tiny import Lines, picture_config

GOOD = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
TARGETS = np.random.default_rng(1).normal(size=8).astype("float32")
START = 2.0**8  # at which the gradients of this model fit float16
BAD = GOOD.copy()
BAD[7] = 1e5  # beyond float16, and of the last device alone


class Trainer:
    """A linear model in float16 that takes steps of AdamW over some devices."""

    def __init__(self, replicas=1, parts=1, clip_norm=0.0, dtype="mixed_float16"):
        self.strategy = make_strategy(Config(logical_cpus=replicas))
        training, schedule = PretrainConfig(weight_decay=0.3), Schedule(100, 100, 0, 0.01)
        with self.strategy.scope():
            self.model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="dense", dtype=dtype)])
            variables = self.model.trainable_variables
            self.optimizer = make_adamw(variables, training, schedule, rule_table(variables))
            averages = AveragedWeights(variables, 0.8)
            self.scale = LossScale()
        self.scale.scale.assign(START)
        self.model.set_weights([np.array([[0.5], [-1.0], [2.0]]), np.array([0.25])])
        averages.begin()
        of_keras = [variable.value for variable in (*self.model.variables, *self.optimizer.variables)]
        self._state = [*of_keras, *averages.averages]

        def example_losses(batch):
            return tf.square(tf.cast(self.model(batch["inputs"])[:, 0], tf.float32) - batch["targets"])

        model = self.strategy, self.model, self.optimizer, example_losses
        self._step = make_training_step(*model, parts, clip_norm, averages, self.scale)

    def step(self, inputs):
        """Takes a step and returns its metrics."""
        batch = {"inputs": inputs, "targets": TARGETS, "weights": np.ones(8, "float32")}
        data = tf.data.Dataset.from_tensor_slices(batch).batch(8, drop_remainder=True)
        metrics = self._step(next(iter(self.strategy.experimental_distribute_dataset(data))))
        return {name: float(value) for name, value in metrics.items()}

    def state(self):
        """Weights, all of the optimizer, and averages, which all devices have alike."""
        return [self._of_all(variable) for variable in self._state]

    def scales(self):
        return [float(self._of_all(variable)) for variable in self.scale.variables]

    def _of_all(self, variable):
        copies = [copy.numpy() for copy in self.strategy.experimental_local_results(variable)]
        assert len(copies) == self.strategy.num_replicas_in_sync
        for copy in copies:
            np.testing.assert_array_equal(copy, copies[0])
        return copies[0]


def assert_same(actual, expected):
    assert len(actual) == len(expected) >= 8
    for one, other in zip(actual, expected):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("replicas", "parts", "clip_norm"), [(1, 1, 0.0), (2, 2, 0.5), (4, 1, 0.0)])
def test_an_overflow_on_one_device_halves_the_scale_and_changes_nothing_else(replicas, parts, clip_norm):
    disturbed, undisturbed = (Trainer(replicas, parts, clip_norm) for _ in range(2))
    for trainer in (disturbed, undisturbed):
        metrics = trainer.step(GOOD)
        assert (metrics["loss_scale"], metrics["skipped_steps"]) == (START, 0.0)
    before = disturbed.state()
    for number in (1, 2):
        metrics = disturbed.step(BAD)
        assert np.isnan(metrics.get("gradient_norm", np.nan))
        assert (metrics["loss_scale"], metrics["skipped_steps"]) == (START / 2 ** (number - 1), 1.0)
        assert_same(disturbed.state(), before)
        assert disturbed.scales() == [START / 2**number, 0.0, number]
    # Scales are powers of two, so the steps that follow do not depend on them.
    for trainer in (disturbed, undisturbed):
        trainer.step(GOOD)
    assert_same(disturbed.state(), undisturbed.state())
    assert int(disturbed.optimizer.iterations.value.numpy()) == 2
    assert np.abs(disturbed.state()[0] - before[0]).max() > 1e-3


@pytest.mark.parametrize(("replicas", "clip_norm"), [(1, 0.0), (2, 0.5)])
def test_the_gradient_is_that_of_the_loss_itself(replicas, clip_norm):
    """A model in float32 has nothing but powers of two multiplied in and divided out again."""
    scaled, alone = Trainer(replicas, 1, clip_norm, "float32"), Trainer(replicas, 1, clip_norm, "float32")
    alone.scale.scale.assign(1.0)
    for trainer in (scaled, alone):
        metrics = trainer.step(GOOD)
        assert 0.5 < metrics["loss"] < 20.0 and metrics.get("gradient_norm", 1.0) < 20.0
    assert_same(scaled.state(), alone.state())


def test_the_scale_grows_after_finite_steps_in_a_row_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(loss_scale, "GROWTH_STEPS", 3)
    monkeypatch.setattr(loss_scale, "LARGEST", 2 * START)
    trainer = Trainer(2)
    scales = [trainer.step(BAD if step == 2 else GOOD)["loss_scale"] / START for step in range(12)]
    assert scales == [1, 1, 1, 0.5, 0.5, 0.5, 1, 1, 1, 2, 2, 2]
    assert trainer.scales() == [2 * START, 0.0, 1.0]


@pytest.mark.parametrize("replicas", [2, 4])
def test_at_a_scale_of_1_nothing_is_skipped(replicas):
    trainer = Trainer(replicas)
    trainer.scale.scale.assign(2.0)
    assert trainer.step(BAD)["skipped_steps"] == 1.0
    assert trainer.step(BAD)["skipped_steps"] == 0.0
    assert np.isnan(trainer.state()[0]).any() and trainer.scales()[0] == 1.0


def test_a_checkpoint_without_a_scale_leaves_it_as_it_begins(tmp_path):
    trainer = Trainer()
    checkpoints = Checkpoints(tmp_path, trainer.model, trainer.optimizer, 1)
    checkpoints.save(3)
    again = Checkpoints(tmp_path, trainer.model, trainer.optimizer, 1, loss_scale=trainer.scale)
    assert again.restore() == (3, []) and trainer.scales() == [START, 0.0, 0.0]


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ((), "float32"),
        ((9,), "mixed_bfloat16"),
        ((8, 9), "mixed_bfloat16"),
        ((7, 9), "mixed_float16"),
        ((6,), "float32"),
        ((7, 6), "float32"),
        ((None,), "float32"),
    ],
)
def test_auto_takes_what_all_gpus_are_made_for(monkeypatch, capabilities, precision):
    details = [{"compute_capability": (major, 5)} if major else {} for major in capabilities]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(range(len(details))))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)
    assert choose_precision("auto") == precision
    assert choose_precision("mixed_float16") == "mixed_float16"


TRAINING = {"steps": 15, "batch_size": 16, "base_learning_rate": 0.5}
TASKS = {"pretrain": pretrain, "finetune": finetune}


def make_config(pictures, precision="mixed_float16", **training):
    training = {**TRAINING, **training}
    finetune = {**training, "ema_decay": 0.7, "drop_path_rate": 0.3}
    return picture_config(pictures, pretrain=training, finetune=finetune, seed=3, precision=precision)


def column(workdir, name):
    return np.array([line[name] for line in read_metrics(workdir)])


@pytest.fixture(scope="module")
def losses(pictures, tmp_path_factory):
    """Runs on demand: from (task, precision) to the losses and the workdir."""

    @functools.cache
    def run(task, precision):
        workdir = tmp_path_factory.mktemp(precision)
        TASKS[task].run(make_config(pictures, precision), workdir, log=Lines())
        return column(workdir, "loss"), workdir

    return run


@pytest.mark.parametrize(
    ("task", "precision"),
    [("pretrain", "mixed_float16"), ("finetune", "mixed_float16"), ("pretrain", "mixed_bfloat16")],
)
def test_losses_are_those_of_float32_up_to_rounding(losses, task, precision):
    """A value on its way to the loss is rounded about 16 times (twice in the stem, 11 times in a block, 3 in decoder or
    head), up and down: four times the unit roundoff. A mean of squares doubles that."""
    (expected, _), (actual, workdir) = losses(task, "float32"), losses(task, precision)
    roundoff = {"mixed_float16": 2.0**-11, "mixed_bfloat16": 2.0**-8}[precision]
    np.testing.assert_allclose(actual, expected, rtol=2 * 4 * roundoff)
    assert np.ptp(expected) > 0.04 and not (actual == expected).all()
    if precision == "mixed_float16":
        assert set(column(workdir, "loss_scale")) == {INITIAL}
        assert read_json(workdir / "summary.json")["skipped_steps"] == 0


@pytest.mark.parametrize("replicas", [2, 4])
def test_a_run_goes_on_after_overflows_and_resumes_bit_for_bit(pictures, tmp_path, monkeypatch, at_step, replicas):
    monkeypatch.setattr(loss_scale, "INITIAL", 2.0**26)
    monkeypatch.setattr(loss_scale, "GROWTH_STEPS", 4)
    config = make_config(pictures, steps=9, clip_norm=1.0)
    config = dataclasses.replace(config, logical_cpus=replicas, checkpoint_every=3)
    finetune.run(config, tmp_path / "whole", log=Lines())
    skipped = column(tmp_path / "whole", "skipped_steps")
    assert skipped[0] == 1.0 and 0.0 in skipped and np.isfinite(column(tmp_path / "whole", "loss")).all()
    assert read_json(tmp_path / "whole" / "summary.json")["skipped_steps"] == skipped.sum()
    rates = column(tmp_path / "whole", "learning_rate")
    assert len(set(rates)) == (skipped == 0.0).sum()  # the schedule stands still where a step is skipped

    at_step(5, crash)
    with pytest.raises(ZeroDivisionError):
        finetune.run(config, tmp_path / "parts", log=Lines())
    at_step(0, crash)
    finetune.run(config, tmp_path / "parts", log=Lines())
    for name in ("loss", "loss_scale", "skipped_steps", "gradient_norm", "learning_rate"):
        np.testing.assert_array_equal(column(tmp_path / "parts", name), column(tmp_path / "whole", name))
    for file in ("classifier.keras", "classifier_ema.keras"):
        models = [keras.saving.load_model(tmp_path / way / file, compile=False) for way in ("whole", "parts")]
        for value, expected in zip(*(model.get_weights() for model in models)):
            np.testing.assert_array_equal(value, expected)


def crash():
    raise ZeroDivisionError


@pytest.mark.parametrize(("replicas", "precision"), [(1, "mixed_float16"), (4, "mixed_float16"), (1, "float32")])
def test_a_model_that_diverges_ends_as_in_float32(pictures, tmp_path, replicas, precision):
    config = make_config(pictures, precision, base_learning_rate=1e30, weight_decay=0.0, steps=10)
    config = dataclasses.replace(config, log_every=1, logical_cpus=replicas, checkpoint_every=1)
    with pytest.raises(RunError, match="The loss is (nan|inf) at step 2; the last good checkpoint is"):
        finetune.run(config, tmp_path, log=Lines())
    assert json.loads((tmp_path / "nonfinite.json").read_text())["step"] == 2
    assert (tmp_path / "checkpoints" / "ckpt-1.index").exists()  # the weights of which no later step changed
