"""Stopped at any step and started again, a run ends in the very weights of one that was never stopped."""

import ctypes
import dataclasses
import json
import os
import signal
import sys
import threading
import time

import keras
import numpy as np
import pytest

from experiments import finetune, pretrain
from experiments.errors import Interrupted
from experiments.io import replacing
from experiments.training.distributed import workers
from experiments.training.distributed.rendezvous import meet
from experiments.training.guards import Interruption, stopping_at_once
from experiments.training.loggers import read_metrics
from experiments.training.workdir import read_json
from tests.experiments.ports import free_ports
from tests.experiments.tiny import Lines, change, picture_config

STEPS = 7  # of 3 steps an epoch
TRAINING = {"steps": STEPS, "warmup_epochs": 1, "base_learning_rate": 0.1, "batch_size": 14, "accumulation_steps": 2}
TASKS = {"pretrain": (pretrain, "fcmae.keras"), "finetune": (finetune, "classifier.keras")}
# Stochastic depth and dropout draw from generators, whose state has to survive too.
NOISE = {"drop_path_rate": 0.5, "dropout_rate": 0.3}
AVERAGE = {"ema_decay": 0.7}
# The best weights so far have to be known after a stop.
MORE = {"evaluations": 2, "mixup_alpha": 0.8, "cutmix_alpha": 1.0, "clip_norm": 1.0}


class CrashError(Exception):
    """What nobody expects."""


def make_config(pictures, task):
    config = picture_config(
        pictures,
        finetune={**TRAINING, **NOISE, **AVERAGE, **MORE},
        pretrain=TRAINING,
        checkpoint_every=3,
        seed=1,
    )
    return change(config, "data", validation_share=0.1) if task == "finetune" else config


def crash():
    raise CrashError


def weights(workdir, task):
    """The final weights, the average of them, and the best."""
    found = {}
    others = ["classifier_ema.keras", "classifier_best.keras"] if task == "finetune" else []
    for name in (TASKS[task][1], *others):
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
        module.run(make_config(pictures, task), workdirs[task], log=Lines())
    return workdirs


def assert_same_run(workdir, expected, task):
    one, other = weights(expected, task), weights(workdir, task)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(other[name], one[name], err_msg=name)
    assert [step for step, _ in logged(workdir)] == list(range(1, STEPS + 1))
    assert logged(workdir) == logged(expected)
    for name in ("learning_rate", "validation_top1", "validation_top1_ema"):
        assert logged(workdir, name) == logged(expected, name)
    if task == "finetune":
        assert read_json(workdir / "best.json") == read_json(expected / "best.json")


@pytest.mark.parametrize(
    ("task", "number", "step"),
    [
        ("pretrain", signal.SIGTERM, 2),  # inside the first epoch
        ("finetune", signal.SIGINT, 5),  # inside the second
    ],
)
def test_a_signal_saves_and_stops_and_the_run_goes_on(pictures, tmp_path, at_step, undisturbed, task, number, step):
    run, config = TASKS[task][0].run, make_config(pictures, task)
    before = signal.getsignal(number)
    at_step(step, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match=f"Stopped at step {step} of {STEPS}; run the same command to resume."):
        run(config, tmp_path, log=Lines())
    assert signal.getsignal(number) is before
    assert not (tmp_path / "summary.json").exists() and not (tmp_path / TASKS[task][1]).exists()
    assert (tmp_path / "checkpoints" / f"ckpt-{step}.index").exists()
    assert logged(tmp_path) == logged(undisturbed[task])[:step]

    at_step(0, crash)
    lines = Lines()
    config = dataclasses.replace(config, checkpoint_every=0, checkpoint_minutes=1e-9)  # one after each step
    assert run(config, tmp_path, log=lines)["steps"] == STEPS
    assert f"  starts from   its own checkpoint of step {step}" in lines
    assert_same_run(tmp_path, undisturbed[task], task)


def test_a_crash_goes_on_from_the_last_checkpoint_at_the_border_of_epochs(pictures, tmp_path, at_step, undisturbed):
    config = make_config(pictures, "finetune")
    at_step(6, crash)
    with pytest.raises(CrashError):
        finetune.run(config, tmp_path, log=Lines())
    assert [number for number, _ in logged(tmp_path)] == [1, 2, 3, 4, 5]

    at_step(0, crash)
    lines = Lines()
    finetune.run(config, tmp_path, log=lines)
    assert "  starts from   its own checkpoint of step 3" in lines
    assert_same_run(tmp_path, undisturbed["finetune"], "finetune")


def test_signals_outside_of_the_steps_stop_at_once_and_leave_nothing_half_written(
    pictures, tmp_path, at_step, undisturbed, monkeypatch
):
    """Before the first step, in the final evaluation, and, which is the end of the steps, in the last of them."""
    config, workdir = make_config(pictures, "finetune"), tmp_path / "run"
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    def stop(*_):
        os.kill(os.getpid(), signal.SIGINT)

    def stop_while_writing(task, run):
        with replacing(run.workdir / "classifier.keras") as path:
            path.write_bytes(b"half")
            stop()

    message = "Stopped by SIGINT outside of training; run the same command to resume."
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=message):
        patch.setattr(finetune, "open_source", stop)
        finetune.run(config, workdir, log=Lines())
    assert not workdir.exists()

    at_step(STEPS, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match=f"Stopped at step {STEPS} of {STEPS}; run the same command to resume."):
        finetune.run(config, workdir, log=Lines())
    at_step(0, stop)
    with monkeypatch.context() as patch, pytest.raises(Interrupted, match=message):
        patch.setattr(finetune.Finetuning, "finish", stop_while_writing)
        finetune.run(config, workdir, log=Lines())
    assert not {"classifier.keras", "summary.json", "run.lock"} & set(os.listdir(workdir))
    assert [path for path in workdir.rglob(".*")] == []
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before

    lines = Lines()
    assert finetune.run(config, workdir, log=lines)["steps"] == STEPS
    assert f"  starts from   its own checkpoint of step {STEPS}" in lines
    assert_same_run(workdir, undisturbed["finetune"], "finetune")


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(first, second):
    """In a child, whose parent sees how it ended."""
    child = os.fork()
    if not child:
        with Interruption() as interruption:
            os.kill(os.getpid(), first)
            if interruption.requested:
                os.kill(os.getpid(), second)
            time.sleep(10)
        os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + second


def test_a_signal_that_comes_while_a_destructor_runs_is_not_lost():
    class Ending:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)  # the handler runs here, and Python drops what it raises

    hook, alarm = sys.unraisablehook, signal.getsignal(signal.SIGALRM)
    for steps in (200, 0):  # also where the context ends before the signal is raised again
        with pytest.raises(Interrupted, match="Stopped by SIGTERM outside of training"), stopping_at_once():
            Ending()
            for _ in range(steps):
                time.sleep(0.01)
        assert (sys.unraisablehook, signal.getsignal(signal.SIGALRM)) == (hook, alarm)
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
    signal.alarm(30)  # one of the caller's own goes on
    with stopping_at_once():
        pass
    assert signal.alarm(0) > 20


@pytest.mark.parametrize("context", [Interruption, stopping_at_once])
def test_a_second_signal_ends_even_a_step_that_never_comes_back_to_python(context):
    """The child waits in C code for a lock that it holds itself: no handler runs any more."""
    lock, wait_for = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with context():
            wait_for(lock)
            os.write(writing, b".")
            wait_for(lock)
        os._exit(99)
    os.close(writing)  # or nothing would end the wait if the child does
    os.read(reading, 1)
    for number in (signal.SIGTERM, signal.SIGINT):
        time.sleep(0.3)
        os.kill(child, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGINT


def test_a_signal_that_nothing_took_note_of_ends_the_context():
    """It came after the last step had asked."""
    message = "Stopped after the last step; run the same command to resume."
    with pytest.raises(Interrupted, match=message), Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested


def test_a_signal_while_it_waits_for_other_workers_stops_at_once(pictures, tmp_path, monkeypatch):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))

    def stopped_meeting(*arguments):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        meet(*arguments)

    monkeypatch.setattr(workers, "meet", stopped_meeting)
    config = dataclasses.replace(make_config(pictures, "pretrain"), distribution="multiworker")
    with pytest.raises(Interrupted, match="Stopped by SIGTERM outside of training; run the same command to resume."):
        pretrain.run(config, tmp_path / "run", log=Lines())
    assert not (tmp_path / "run").exists()
