"""The comparison of two runs: it must see a single bit."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.reliability.comparison import compare_runs
from experiments.training.checkpoint_files import CheckpointFiles

STEP = 4


def save_checkpoint(workdir, values, step=STEP):
    folder = workdir / "checkpoints"
    folder.mkdir(exist_ok=True)
    files = CheckpointFiles(folder)
    tf.train.Checkpoint(weights=tf.Variable(values)).write(files.prefix(step))
    files.seal(step)


def write_metrics(workdir, steps, **changes):
    lines = [{"step": step, "loss": 1 / step, "images_per_second": np.random.default_rng().random()} for step in steps]
    lines[-1] |= changes
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def save_model(workdir, values):
    model = keras.Sequential([keras.Input((2,), name="pixels"), keras.layers.Dense(1, name="head")], name="model")
    model.set_weights([values, np.zeros(1, "float32")])
    model.save(workdir / "encoder.keras")


@pytest.fixture
def values():
    return np.array([[1.0], [2.0]], "float32")


@pytest.fixture
def runs(tmp_path, values):
    """Two workdirs that are the same but for times."""
    for name in ("one", "other"):
        workdir = tmp_path / name
        workdir.mkdir()
        save_checkpoint(workdir, values)
        write_metrics(workdir, range(1, STEP + 1))
        save_model(workdir, values)
        (workdir / "summary.json").write_text(json.dumps({"steps": STEP, "seconds": len(name)}))
        (workdir / "parameters.csv").write_text("variable,shape\n")
    return tmp_path / "one", tmp_path / "other"


def test_runs_that_differ_in_times_alone_are_the_same(runs):
    compared, differences = compare_runs(*runs)
    assert differences == []
    assert compared["weights of saved models"] == 3 and compared["lines of metrics"] == STEP
    assert compared["variables of the newest checkpoint"] == 2 and compared["other records"] == 2


def add_a_bit(workdir, values):
    save_checkpoint(workdir, np.nextafter(values, np.float32(9)))


def add_a_bit_to_a_model(workdir, values):
    save_model(workdir, np.nextafter(values, np.float32(9)))


def write_a_step_twice(workdir, values):
    write_metrics(workdir, [1, 2, 3, 3, 4])


def leave_out_a_step(workdir, values):
    write_metrics(workdir, [1, 3, 4])


def change_a_loss(workdir, values):
    write_metrics(workdir, range(1, STEP + 1), loss=CHANGED["loss"])


def change_the_summary(workdir, values):
    (workdir / "summary.json").write_text(json.dumps({"steps": STEP + 1}))


def leave_a_file(workdir, values):
    (workdir / "checkpoints" / "ckpt-2_temp").mkdir()


def leave_a_checkpoint(workdir, values):
    for path in (workdir / "checkpoints").glob(f"ckpt-{STEP}.*"):
        shutil.copy(path, path.with_name(path.name.replace(f"-{STEP}.", "-2.")))


def let_a_file_grow(workdir, values):
    (workdir / "parameters.csv").write_text("variable,shape\n" + " " * 4096)


CHANGED = {"step": STEP, "loss": 0.2500000000000001}
CHANGES = {
    add_a_bit: "variables of the newest checkpoint: weights/.ATTRIBUTES/VARIABLE_VALUE differs",
    add_a_bit_to_a_model: "weights of saved models: encoder.keras layers/dense/vars/0 differs",
    write_a_step_twice: "lines of metrics: steps [3] appear more than once, [] are missing, or out of order",
    leave_out_a_step: "lines of metrics: steps [] appear more than once, [2] are missing, or out of order",
    change_a_loss: f"lines of metrics: step 4 has {CHANGED}, not {{'step': 4, 'loss': 0.25}}",
    change_the_summary: "other records: summary.json differs",
    leave_a_file: "files: checkpoints/ckpt-STEP_temp is left over",
    leave_a_checkpoint: "files: checkpoints/ckpt-STEP.index: 2 of them, not 1",
    let_a_file_grow: "files: parameters.csv has 4,111 bytes, not 15",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_every_difference_is_found(runs, values, change):
    change(runs[1], values)
    assert CHANGES[change] in compare_runs(*runs)[1]
