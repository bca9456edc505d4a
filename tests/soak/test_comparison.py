"""The comparison of two runs: it must see a single bit."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.training.checkpoint import CheckpointFiles
from tests.soak.comparison import compare_runs

VALUES = np.array([[1.0], [2.0]], "float32")
NEXT = np.nextafter(VALUES, np.float32(9))  # one bit more


def save_checkpoint(workdir, values):
    files = CheckpointFiles(workdir)
    files.folder.mkdir(exist_ok=True)
    tf.train.Checkpoint(weights=tf.Variable(values)).write(files.prefix(4))
    files.seal(4)


def save_model(workdir, values):
    model = keras.Sequential([keras.Input((2,), name="pixels"), keras.layers.Dense(1, name="head")], name="model")
    model.set_weights([values, np.zeros(1, "float32")])
    model.save(workdir / "encoder.keras")


def write_metrics(workdir, *losses):
    lines = [{"step": step, "loss": loss, "images_per_second": id(workdir)} for step, loss in enumerate(losses, 1)]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def runs(tmp_path):
    """Two workdirs that are the same but for times."""
    workdirs = [tmp_path / "one", tmp_path / "other"]
    for seconds, workdir in enumerate(workdirs):
        workdir.mkdir()
        save_checkpoint(workdir, VALUES)
        save_model(workdir, VALUES)
        write_metrics(workdir, 3.0, 2.0, 1.0)
        (workdir / "summary.json").write_text(json.dumps({"steps": 3, "seconds": seconds}))
        (workdir / "parameters.csv").write_text("variable,shape\n")
        (workdir / "environment.json").write_text("[]" * 1000 * seconds)
    return workdirs


def test_runs_that_differ_in_times_alone_are_the_same(runs):
    compared, differences = compare_runs(*runs)
    assert differences == [] and list(compared.values()) == [2, 3, 3, 2, 8]


def copy_checkpoint(workdir):
    for path in (workdir / "checkpoints").glob("ckpt-4.*"):
        shutil.copy(path, path.with_name(path.name.replace("-4.", "-2.")))


CHANGES = {
    "variables of the newest checkpoint: weights/.ATTRIBUTES/VARIABLE_VALUE differs": lambda run: save_checkpoint(
        run, NEXT
    ),
    "weights of saved models: encoder.keras layers/dense/vars/0 differs": lambda run: save_model(run, NEXT),
    "weights of saved models: encoder.keras config is missing": lambda run: (run / "encoder.keras").unlink(),
    "lines of metrics: line 4 is left over": lambda run: write_metrics(run, 3.0, 2.0, 2.0, 1.0),
    "lines of metrics: line 3 is missing": lambda run: write_metrics(run, 3.0, 1.0),
    "lines of metrics: line 3 differs: {'step': 3, 'loss': 1.0000000000000002}": lambda run: write_metrics(
        run, 3.0, 2.0, 1.0000000000000002
    ),
    "other records: summary.json differs: {'steps': 4}": lambda run: (run / "summary.json").write_text('{"steps": 4}'),
    "files: checkpoints/ckpt-STEP_temp is left over": lambda run: (run / "checkpoints" / "ckpt-2_temp").mkdir(),
    "files: checkpoints/ckpt-STEP.index differs: ": copy_checkpoint,
    "files: parameters.csv differs: [4111]": lambda run: (run / "parameters.csv").write_text(" " * 4111),
}


@pytest.mark.parametrize("difference", CHANGES)
def test_every_difference_is_found(runs, difference):
    CHANGES[difference](runs[1])
    assert any(found.startswith(difference) for found in compare_runs(*runs)[1])
