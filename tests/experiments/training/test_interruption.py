"""Stopped at any step and started again, a run ends in the very weights of one that was never stopped."""

import os
import signal

import keras
import numpy as np
import pytest

from experiments import finetune, pretrain
from experiments.errors import Interrupted
from experiments.training import job
from experiments.training.tracking import read_metrics
from tests.experiments.tiny import Lines, picture_config

STEPS = 7  # of 3 steps an epoch
TRAINING = {"steps": STEPS, "warmup_epochs": 1, "base_learning_rate": 0.1}
TASKS = {"pretrain": (pretrain, "fcmae.keras"), "finetune": (finetune, "classifier.keras")}
# Stochastic depth and dropout draw from generators, whose state has to survive too.
NOISE = {"drop_path_rate": 0.5, "dropout_rate": 0.3}
AVERAGE = {"ema_decay": 0.7}


class CrashError(Exception):
    """What nobody expects."""


def make_config(pictures, **arguments):
    arguments = {
        "finetune": {**TRAINING, **NOISE, **AVERAGE},
        "pretrain": TRAINING,
        "checkpoint_every": 3,
        "seed": 1,
        **arguments,
    }
    return picture_config(pictures, model={"depths": (1,), "dims": (4,), "stem_stride": 8}, **arguments)


@pytest.fixture
def at_step(monkeypatch):
    """Makes something happen within a step of the runs to come: `at_step(number, action)`."""
    make_training_step = job.make_training_step

    def arrange(number, action):
        def make(*arguments, **keywords):
            step = make_training_step(*arguments, **keywords)
            taken = 0

            def counted(batch):
                nonlocal taken
                taken += 1
                if taken == number:
                    action()
                return step(batch)

            return counted

        monkeypatch.setattr(job, "make_training_step", make)

    return arrange


def crash():
    raise CrashError


def weights(workdir, task):
    """The final weights, and the average of them."""
    found = {}
    for name in (TASKS[task][1], *(["classifier_ema.keras"] if task == "finetune" else [])):
        model = keras.saving.load_model(workdir / name, compile=False)
        found.update({f"{name}: {variable.path}": np.asarray(variable.value) for variable in model.weights})
    return found


def logged(workdir, name="loss"):
    return [(line["step"], line[name]) for line in read_metrics(workdir) if name in line]


@pytest.fixture(scope="module")
def undisturbed(pictures, tmp_path_factory):
    """`{task: workdir}` of runs that were never stopped."""
    workdirs = {}
    for task, (module, _) in TASKS.items():
        workdirs[task] = tmp_path_factory.mktemp("undisturbed") / task
        module.run(make_config(pictures), workdirs[task], say=Lines())
    return workdirs


def assert_same_run(workdir, expected, task):
    one, other = weights(expected, task), weights(workdir, task)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(other[name], one[name], err_msg=name)
    assert [step for step, _ in logged(workdir)] == list(range(1, STEPS + 1))
    assert logged(workdir) == logged(expected)
    assert logged(workdir, "learning_rate") == logged(expected, "learning_rate")


@pytest.mark.parametrize(
    ("task", "number", "step"),
    [
        ("pretrain", signal.SIGTERM, 2),  # inside the first epoch
        ("finetune", signal.SIGINT, 5),  # inside the second
    ],
)
def test_a_signal_saves_and_stops_and_the_run_goes_on(pictures, tmp_path, at_step, undisturbed, task, number, step):
    run, config = TASKS[task][0].run, make_config(pictures)
    before = signal.getsignal(number)
    at_step(step, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match=f"Stopped at step {step} of {STEPS}; the same command goes on from there."):
        run(config, tmp_path, say=Lines())
    assert signal.getsignal(number) is before
    assert not (tmp_path / "summary.json").exists() and not (tmp_path / TASKS[task][1]).exists()
    assert (tmp_path / "checkpoints" / f"ckpt-{step}.index").exists()
    assert logged(tmp_path) == logged(undisturbed[task])[:step]

    at_step(0, crash)
    lines = Lines()
    assert run(config, tmp_path, say=lines)["steps"] == STEPS
    assert f"  starts from   its own checkpoint of step {step}" in lines
    assert_same_run(tmp_path, undisturbed[task], task)


def test_a_crash_goes_on_from_the_last_checkpoint_at_the_border_of_epochs(pictures, tmp_path, at_step, undisturbed):
    config = make_config(pictures)
    at_step(6, crash)
    with pytest.raises(CrashError):
        finetune.run(config, tmp_path, say=Lines())
    assert [number for number, _ in logged(tmp_path)] == [1, 2, 3, 4, 5]

    at_step(0, crash)
    lines = Lines()
    finetune.run(config, tmp_path, say=lines)
    assert "  starts from   its own checkpoint of step 3" in lines
    assert_same_run(tmp_path, undisturbed["finetune"], "finetune")


def test_a_signal_in_the_last_step_lets_the_run_finish(pictures, tmp_path, at_step, undisturbed):
    at_step(STEPS, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert finetune.run(make_config(pictures), tmp_path, say=Lines())["steps"] == STEPS
    assert_same_run(tmp_path, undisturbed["finetune"], "finetune")
