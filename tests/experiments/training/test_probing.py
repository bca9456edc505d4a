"""Probes while pretraining: what they measure, that it is logged, and that the training does not notice."""

import dataclasses
import os
import signal
import types

import keras
import numpy as np
import pytest

from experiments import pretrain
from experiments.config import WandbConfig
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit
from experiments.data.sources.digits import open_digits
from experiments.errors import Interrupted, UserError
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.probes import knn_top1, linear_top1
from experiments.models import make_encoder
from experiments.training import loggers, run
from experiments.training.callbacks import LogOnce
from experiments.training.loggers import Loggers, read_metrics
from experiments.training.probing import probing_steps
from experiments.training.run import Run
from experiments.training.schedule import Schedule
from tests.experiments.tiny import Lines, change, picture_config, tiny_config

# 5 steps of 2 an epoch; 12 images a batch are few enough to be quick.
PLAIN = tiny_config(
    pretrain={"steps": 5, "batch_size": 12},
    seed=3,
    log_every=2,
)
PROBED = change(PLAIN, "pretrain", probe_every=2, probe_images=30)
CONTROL = ("random_knn_top1", "random_linear_top1")
FIGURES = ("knn_top1", "linear_top1")


class OutOfBounds(MemorySplit):
    """A split that is counted, but not read."""

    def in_order(self):
        raise AssertionError("The test images were read.")

    shuffled = take = in_order


@pytest.fixture(scope="module")
def source():
    """24 digits to train on, 30 for validation, and test images that must not be read."""
    digits = open_digits()
    test = digits.split("test")
    parts = {
        "train": digits.split("train").take(range(24)),
        "validation": digits.split("validation").take(range(30)),
        "test": OutOfBounds(test.contents, test.labels),
    }
    return dataclasses.replace(digits, splits=parts)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, source):
    """`{name: (workdir, summary)}` of a run without probes, and of one with probes that was stopped on the way."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "open_source", lambda data: source)
        patch.setattr(pretrain, "ReconstructionLoss", lambda *arguments: lambda: 0.0)  # takes its time
        plain = pretrain.run(PLAIN, root / "plain", log=Lines())
        make_training_step = run.make_training_step

        def make(*arguments, **keywords):
            step = make_training_step(*arguments, **keywords)
            taken = []

            def counted(*arguments):
                taken.append(1)
                if len(taken) == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                return step(*arguments)

            return counted

        patch.setattr(run, "make_training_step", make)
        with pytest.raises(Interrupted, match="Stopped at step 3 of 5"):
            pretrain.run(PROBED, root / "probed", log=Lines())
        patch.setattr(run, "make_training_step", make_training_step)
        probed = pretrain.run(PROBED, root / "probed", log=Lines())
    return {"plain": (root / "plain", plain), "probed": (root / "probed", probed)}


def weights(workdir):
    model = keras.saving.load_model(workdir / "fcmae.keras", compile=False)
    return {variable.path: np.asarray(variable.value) for variable in model.weights}


def test_probes_do_not_change_the_training_also_of_a_run_that_goes_on(runs):
    plain, probed = (weights(runs[name][0]) for name in ("plain", "probed"))
    assert plain.keys() == probed.keys()
    for name in plain:
        np.testing.assert_array_equal(probed[name], plain[name], err_msg=name)
    losses = [[line["loss"] for line in read_metrics(workdir) if "loss" in line] for workdir, _ in runs.values()]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_figures_stand_at_the_ends_of_epochs_and_of_the_run_and_those_of_the_random_encoder_once(runs):
    lines = read_metrics(runs["probed"][0])
    for name in FIGURES:
        assert [line["step"] for line in lines if name in line] == [4, 5]
    for name in CONTROL:
        assert [line["step"] for line in lines if name in line] == [0]
    assert not any(name in line for line in read_metrics(runs["plain"][0]) for name in FIGURES + CONTROL)


def test_figures_are_those_of_the_encoder_and_of_the_one_that_the_seed_gives(runs, source):
    workdir, summary = runs["probed"]
    final = keras.saving.load_model(workdir / "encoder.keras", compile=False)
    keras.utils.set_random_seed(PROBED.seed)
    random = make_encoder(PROBED)
    for prefix, encoder in (("", final), ("random_", random)):
        features_of = PooledFeatures(encoder, Preprocessing.of(PROBED.data), 7)
        train, validation = (features_of(source.split(name)) for name in ("train", "validation"))
        # Rounding may tip one of 30 images.
        assert summary[f"{prefix}knn_top1"] == pytest.approx(knn_top1(train, validation), abs=3.4)
        # What is chosen by the validation images would be scored on them too.
        assert summary[f"{prefix}linear_top1"] == pytest.approx(linear_top1(train, None, validation), abs=3.4)
    assert {name: summary[name] for name in FIGURES} == {
        name: line[name] for line in read_metrics(workdir) for name in FIGURES if name in line
    }
    assert any(summary[name] != summary[f"random_{name}"] for name in FIGURES)


def test_a_person_sees_what_is_probed_on(runs, source, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "open_source", lambda data: source)
    monkeypatch.setattr(Run, "restore", None)  # is not reached
    lines = Lines()
    with pytest.raises(TypeError):
        pretrain.run(change(PROBED, "pretrain", probe_images=20), tmp_path, log=lines)
    assert "  probes        k-NN and linear, on 20 training and 20 validation images, every 2 epochs" in lines


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("class_0", "has no labels to probe with; use --config.pretrain.probe_every=0"),
        ("", "has no validation images: set data.validation_share, or use --config.pretrain."),
    ],
)
def test_images_that_cannot_be_probed_on_are_refused_before_the_run(pictures, tmp_path, folder, reason):
    config = picture_config(pictures / folder, pretrain={"probe_every": 3})
    lines = Lines()
    with pytest.raises(UserError, match=f"^pretrain.probe_every=3: folder:.* {reason}"):
        pretrain.run(config, tmp_path / "run", log=lines)
    assert lines == [] and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("every", "epochs", "expected"),
    [(1, 3, [4, 8, 12]), (2, 3, [8, 12]), (2, 4, [8, 16]), (5, 3, [12]), (3, 2.5, [10])],
)
def test_the_steps_of_the_probes(every, epochs, expected):
    assert probing_steps(every, Schedule(4, int(4 * epochs), 0, 0.1)) == expected


class Recorder:
    """Takes the place of the logger for Weights & Biases."""

    def __init__(self):
        self.logged = []

    def scalars(self, step, values):
        self.logged.append((step, values))

    def close(self): ...


def begin(workdir, start_step, values, monkeypatch):
    """A run that begins or is resumed, logs `values` once and takes a step; what a logger gets of it."""
    recorder = Recorder()
    monkeypatch.setattr(loggers, "Wandb", lambda *arguments: recorder)
    config = dataclasses.replace(PROBED, wandb=WandbConfig(mode="offline"))
    run = types.SimpleNamespace(workdir=workdir, start_step=start_step, loggers=Loggers(workdir, config))
    run.loggers.begin(start_step)
    callback = LogOnce(CONTROL, lambda: dict(zip(CONTROL, values)), run)
    callback.on_train_begin()
    run.loggers.scalars(start_step + 1, {"loss": 1.0})
    run.loggers.close()
    return callback, recorder.logged


def test_the_random_encoder_is_logged_once_however_often_a_run_goes_on(tmp_path, monkeypatch):
    first, logged = begin(tmp_path, 0, (10.0, 20.0), monkeypatch)
    control = {CONTROL[0]: 10.0, CONTROL[1]: 20.0}
    assert logged == [(0, control), (1, {"loss": 1.0})]
    second, logged = begin(tmp_path, 1, (30.0, 40.0), monkeypatch)
    assert logged == [(2, {"loss": 1.0})]
    assert first.final() == second.final() == control
    assert read_metrics(tmp_path) == [{"step": 0, **control}, {"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}]
    # From the start again, in a folder of old lines.
    begin(tmp_path, 0, (50.0, 60.0), monkeypatch)
    assert read_metrics(tmp_path) == [{"step": 0, CONTROL[0]: 50.0, CONTROL[1]: 60.0}, {"step": 1, "loss": 1.0}]


def test_a_run_that_goes_on_without_its_record_logs_the_random_encoder_then(tmp_path, monkeypatch):
    assert begin(tmp_path, 7, (10.0, 20.0), monkeypatch)[1][0] == (7, {CONTROL[0]: 10.0, CONTROL[1]: 20.0})
