"""When the loop writes checkpoints, and which time it counts as training."""

import types

import keras
import pytest

from experiments import finetune, pretrain
from experiments.config import Config
from experiments.training import loop, pictures, run
from experiments.training.checkpoint import Checkpoints
from experiments.training.loggers import read_metrics
from experiments.training.loop import train
from experiments.training.schedule import Schedule
from tests.experiments.tiny import Lines, tiny_config


class Clock:
    """A clock that a step moves on."""

    def __init__(self):
        self.seconds = 100.0

    def monotonic(self):
        return self.seconds

    perf_counter = monotonic


class Saved(list):
    """Stands for the checkpoints: notes the steps at which one is saved, and how long that takes."""

    window = ""
    last_good = "there is no checkpoint yet"

    def __init__(self, clock, seconds):
        super().__init__()
        self._clock, self._seconds = clock, seconds

    def save(self, step, window):
        self.append(step)
        self._clock.seconds += self._seconds


class Sound:
    """Stands for the watch over losses and weights, which finds nothing."""

    def check_losses(self, losses, skipped, step): ...

    def check_weights(self, loss, step): ...


class NotInterrupted:
    requested = False

    def release(self): ...

    def question(self): ...

    def take_answer(self, answer): ...


def fake_run(checkpoint_every, checkpoint_minutes=0.0):
    """What the loop needs of a `Run`: 14 steps of 2 images, 7 an epoch."""
    return types.SimpleNamespace(
        start_step=0,
        schedule=Schedule(steps_per_epoch=7, total_steps=14, warmup_steps=0, peak_learning_rate=1.0),
        training=types.SimpleNamespace(batch_size=2),
        config=Config(log_every=3, checkpoint_every=checkpoint_every, checkpoint_minutes=checkpoint_minutes),
        workers=types.SimpleNamespace(is_chief=True),
        loggers=types.SimpleNamespace(flush=lambda: None),
    )


@pytest.mark.parametrize(
    ("every", "minutes", "steps"),
    [
        (4, 0.0, [4, 8, 12, 14]),
        (0, 2.0, [4, 8, 12, 14]),  # 120 s after the last, of steps of 31 s
        (0, 0.5, [*range(1, 15)]),
        (5, 2.0, [4, 5, 9, 10, 14]),  # either way; the minutes count from the last
        (100, 100.0, [14]),
    ],
)
def test_checkpoints_come_by_steps_and_by_minutes(monkeypatch, every, minutes, steps):
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)

    def step(batch, question):
        clock.seconds += 31.0
        return {"loss": 1.0 + batch, "unreadable": 0.0}

    saved = Saved(clock, seconds=200.0)
    train(fake_run(every, minutes), step, range(14), [], saved, NotInterrupted(), Sound())
    assert saved == steps


class Device:
    """A device that works through its steps later, until someone waits for it; and the steps it was waited for."""

    def __init__(self, clock, seconds):
        self._clock, self._seconds = clock, seconds
        self.steps, self._waiting, self.read_at = 0, 0, []

    def step(self, batch, question):
        self.steps += 1
        self._waiting += 1
        return {"loss": Later(self), "unreadable": 0.0}

    def wait(self):
        if self._waiting:
            self.read_at.append(self.steps)
        self._clock.seconds += self._waiting * self._seconds
        self._waiting = 0


class Later:
    """A number on the device."""

    def __init__(self, device):
        self._device = device

    def __float__(self):
        self._device.wait()
        return 1.0


class SlowEvaluation(keras.callbacks.Callback):
    at_steps = {2, 4, 9}

    def __init__(self, clock, device):
        super().__init__()
        self._clock, self._device = clock, device

    def on_train_batch_end(self, batch, logs=None):
        if batch in self.at_steps:
            self._device.wait()
            self._clock.seconds += 1000.0


class Rates(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.found = {}

    def on_train_batch_end(self, batch, logs=None):
        if logs:
            self.found[batch] = logs["images_per_second"]


def test_the_rate_is_that_of_the_steps_alone_and_the_device_is_waited_for_only_where_it_must_be(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    device, rates = Device(clock, seconds=4.0), Rates()
    callbacks = [SlowEvaluation(clock, device), rates]
    train(fake_run(4), device.step, range(14), callbacks, Saved(clock, seconds=200.0), NotInterrupted(), Sound())
    assert rates.found == {step: pytest.approx(2 / 4.0) for step in (3, 6, 9, 12, 14)}
    assert device.read_at == [2, 3, 4, 6, 8, 9, 12, 14]


@pytest.mark.parametrize("task", [pretrain, finetune], ids=["pretrain", "finetune"])
def test_the_rate_of_a_run_leaves_out_evaluation_probes_pictures_and_checkpoints(tmp_path, monkeypatch, task):
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)

    def slow(function, seconds=1000.0):
        def with_delay(*arguments, **keywords):
            clock.seconds += seconds
            return function(*arguments, **keywords)

        return with_delay

    make_training_step = run.make_training_step
    monkeypatch.setattr(run, "make_training_step", lambda *parts: slow(make_training_step(*parts), 0.5))
    monkeypatch.setattr(pretrain, "ReconstructionLoss", lambda *arguments: slow(lambda: 1.0))
    monkeypatch.setattr(finetune, "classification_metrics", slow(finetune.classification_metrics))
    monkeypatch.setattr("experiments.training.probing.FrozenProbes.__call__", slow(lambda *arguments: {"knn": 50.0}))
    monkeypatch.setattr(pictures, "reconstruction_panels", slow(pictures.reconstruction_panels))
    monkeypatch.setattr(pictures, "draw_curves", slow(pictures.draw_curves))
    monkeypatch.setattr(pictures, "SECONDS_BETWEEN_CURVES", 0)
    monkeypatch.setattr(Checkpoints, "save", slow(Checkpoints.save))
    # An epoch is 2 steps: what is slow comes at steps where metrics are logged, and at others.
    often = {"steps": 10, "batch_size": 50, "evaluations": 5}
    config = tiny_config(
        pretrain={**often, "batch_size": 512, "pictures": 3, "probe_every": 2},
        finetune={**often, "ema_decay": 0.5},
        log_every=3,
        checkpoint_every=4,
    )
    task.run(config, tmp_path, log=Lines())
    lines = read_metrics(tmp_path)
    evaluated = [line["step"] for line in lines if {"validation_loss", "validation_top1"} & line.keys()]
    rates = {line["step"]: line["images_per_second"] for line in lines if "loss" in line}
    assert evaluated == [2, 4, 6, 8, 10] and clock.seconds > 7000.0
    batch_size = config.pretrain.batch_size if task is pretrain else config.finetune.batch_size
    assert rates == {step: pytest.approx(batch_size / 0.5) for step in (3, 6, 9, 10)}
