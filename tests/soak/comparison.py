"""Compares what two runs of one configuration left: weights bit for bit, metrics line by line, files one by one."""

import collections
import io
import json
import re
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf

from experiments.training.callbacks import ENVIRONMENT
from experiments.training.checkpoint import CheckpointFiles
from experiments.training.loggers import METRICS, TENSORBOARD

TIMES = ("images_per_second", "seconds")  # differ between any two runs
# How much the size of a file may differ, as a share and in bytes: times are written with more or fewer digits.
SIZE_TOLERANCE, SMALLEST_DIFFERENCE = 0.1, 1024


def compare_runs(right, other):
    """Compares the workdir of a run with that of the undisturbed one, `right`.

    Returns:
        `(compared, differences)`: how many things of each kind were compared, and a line for each difference.
    """
    compared, differences = {}, []
    for kind, read in CONTENTS.items():
        expected, found = read(right), read(other)
        compared[kind] = len(expected)
        differences += [f"{kind}: {name} is missing" for name in expected.keys() - found.keys()]
        differences += [f"{kind}: {name} is left over" for name in found.keys() - expected.keys()]
        differences += [
            f"{kind}: {name} differs" + ("" if isinstance(found[name], (np.ndarray, bytes)) else f": {found[name]}")
            for name in expected.keys() & found.keys()
            if not _same(expected[name], found[name])
        ]
    return compared, sorted(differences)


def _same(expected, value):
    if isinstance(expected, np.ndarray):
        return (expected.dtype, expected.shape, expected.tobytes()) == (value.dtype, value.shape, value.tobytes())
    if isinstance(expected, list):  # sizes of files
        return value == pytest.approx(expected, rel=SIZE_TOLERANCE, abs=SMALLEST_DIFFERENCE)
    return value == expected


def _variables(workdir):
    """What the newest checkpoint holds: weights, moments, averages, generators, position."""
    reader = tf.train.load_checkpoint(CheckpointFiles(workdir).latest)
    return {name: np.asarray(reader.get_tensor(name)) for name in reader.get_variable_to_dtype_map()}


def _models(workdir):
    """The weights of the `.keras` files, and what the models are made of."""
    values = {}

    def collect(name, item):
        if isinstance(item, h5py.Dataset):
            values[f"{path.name} {name}"] = np.asarray(item)

    for path in workdir.glob("*.keras"):
        with zipfile.ZipFile(path) as archive:
            values[f"{path.name} config"] = archive.read("config.json")
            with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
                weights.visititems(collect)
    return values


def _metrics(workdir):
    """The lines of the metrics by their number, so that each step is there once and in order."""
    lines = (workdir / METRICS).read_text(encoding="utf-8").splitlines()
    return {f"line {number}": _without_times(line) for number, line in enumerate(lines, 1)}


def _records(workdir):
    """What else a run writes down, `.json` and `.csv`."""
    values = {path.name: path.read_text(encoding="utf-8") for path in workdir.glob("*.csv")}
    paths = [path for path in workdir.glob("*.json") if path.name != ENVIRONMENT]  # it has a segment for each start
    return values | {path.name: _without_times(path.read_text(encoding="utf-8")) for path in paths}


def _files(workdir):
    """Which files there are and how large they are, whichever steps the checkpoints are of."""
    sizes = collections.defaultdict(list)
    for path in sorted(workdir.rglob("*")):
        if path.name != ENVIRONMENT and path.parent.name != TENSORBOARD:  # of which each start adds to both
            name = str(path.relative_to(workdir).with_name(re.sub(r"(?<=^ckpt-)\d+", "STEP", path.name)))
            sizes[name].append(path.stat().st_size if path.is_file() else 0)
    return sizes


def _without_times(text):
    return {name: value for name, value in json.loads(text).items() if name not in TIMES}


# Functions of a workdir to what it holds of a kind, `{name: value}`.
CONTENTS = {
    "variables of the newest checkpoint": _variables,
    "weights of saved models": _models,
    "lines of metrics": _metrics,
    "other records": _records,
    "files": _files,
}
