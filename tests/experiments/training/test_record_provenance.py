"""A run writes down what it was started by and ran on, once for each start."""

import sys
import types

import keras
import pytest
import tensorflow as tf

from experiments.provenance import command_line, provenance
from experiments.training import callbacks
from experiments.training.callbacks import RecordProvenance
from experiments.training.workdir import read_json


@pytest.fixture
def run(tmp_path):
    """What the record needs of a `Run`."""
    return types.SimpleNamespace(
        workdir=tmp_path,
        start_step=0,
        schedule=types.SimpleNamespace(total_steps=30),
        split=types.SimpleNamespace(num_examples=7),
        workers=types.SimpleNamespace(strategy=tf.distribute.get_strategy(), count=1),
        model=keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]),
    )


@pytest.fixture(autouse=True)
def devices(monkeypatch):
    monkeypatch.setattr(callbacks, "describe_devices", lambda strategy, num_workers: "1 x CPU")


def recorded(run):
    return read_json(run.workdir / "environment.json")["segments"]


def test_each_start_adds_an_entry(run):
    first = RecordProvenance(run)
    first.on_train_begin()
    assert recorded(run)[0]["ended"] is None
    first.on_train_batch_end(12)
    first.on_train_end()
    run.start_step = 12
    second = RecordProvenance(run)
    second.on_train_begin()
    assert [(one["from_step"], one["to_step"]) for one in recorded(run)] == [(0, 12), (12, 12)]
    assert recorded(run)[0]["ended"] >= recorded(run)[0]["started"] and recorded(run)[1]["ended"] is None
    facts = provenance()
    for one in recorded(run):
        assert {name: one[name] for name in ("hardware", "versions", "commit")}.items() <= facts.items()
        assert (one["command"], one["images"], one["total_steps"]) == (command_line(), 7, 30)


def test_a_run_is_seen_now_and_then(run, monkeypatch):
    record = RecordProvenance(run)
    record.on_train_begin()
    record.on_train_batch_end(5, {"loss": 1.0})
    assert recorded(run)[0]["to_step"] == 0
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_RECORDS", 0)
    record.on_train_batch_end(6)
    assert recorded(run)[0]["to_step"] == 0  # metrics are logged at other steps
    record.on_train_batch_end(10, {"loss": 1.0})
    assert recorded(run)[0]["to_step"] == 10


@pytest.mark.parametrize("content", ["", "[]", '{"segments": 3}'])
def test_a_damaged_record_is_begun_anew(run, content):
    (run.workdir / "environment.json").write_text(content)
    run.start_step = 3
    RecordProvenance(run).on_train_begin()
    assert [one["from_step"] for one in recorded(run)] == [3]


def test_the_command_is_what_one_would_type(monkeypatch):
    main = types.SimpleNamespace(__spec__=types.SimpleNamespace(name="launch.pretrain"))
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr("sys.argv", ["/elsewhere/launch/pretrain.py", "--workdir=runs/my run"])
    assert command_line() == "python -m launch.pretrain '--workdir=runs/my run'"
    main.__spec__ = None
    assert command_line() == "python /elsewhere/launch/pretrain.py '--workdir=runs/my run'"
    monkeypatch.setattr("sys.argv", [""])
    assert command_line() is None
