"""Whether two runs came to the same: weights bit for bit, metrics line by line, files one by one."""

import collections
import io
import json
import re
import zipfile

import h5py
import numpy as np
import tensorflow as tf

from experiments.training.checkpoint_files import FOLDER, CheckpointFiles
from experiments.training.segments import ENVIRONMENT
from experiments.training.tracking import METRICS

TIMES = ("images_per_second", "seconds")  # what no two runs have in common
# By how much the size of a file may differ, as a share and in bytes: times are written with more or fewer digits.
SIZE_TOLERANCE, SMALLEST_DIFFERENCE = 0.1, 1024


def compare_runs(one, other):
    """Compares two runs of one configuration.

    Args:
        one: workdir of the run that is right.
        other: workdir of the run that is compared with it.

    Returns:
        `(compared, differences)`: how many things of a kind were compared, `{kind: number}`, and a line for each
        difference.
    """
    compared, differences = {}, []
    for kind, compare in COMPARISONS.items():
        compared[kind], found = compare(one, other)
        differences += [f"{kind}: {difference}" for difference in found]
    return compared, differences


def checkpoint_variables(one, other):
    """Compares what the newest checkpoints hold: weights, moments, averages, generators, position."""
    return _compare_values(_checkpoint_values(one / FOLDER), _checkpoint_values(other / FOLDER))


def saved_models(one, other):
    """Compares the `.keras` files: their weights, and what the models are made of."""
    return _compare_values(_model_values(one), _model_values(other))


def metrics(one, other):
    """Compares the lines of the metrics: each step once, with the same values."""
    right, lines = _lines(one), _lines(other)
    steps, right_steps = [line["step"] for line in lines], [line["step"] for line in right]
    if steps != right_steps:
        times = collections.Counter(steps)
        twice, missing = [step for step in times if times[step] > 1], sorted(set(right_steps) - set(steps))
        return len(right), [f"steps {twice} appear more than once, {missing} are missing, or out of order"]
    different = [
        f"step {line['step']} has {line}, not {expected}" for line, expected in zip(lines, right) if line != expected
    ]
    return len(right), different


def records(one, other):
    """Compares what else a run writes down, `.json` and `.csv`."""
    return _compare_values(_records(one), _records(other))


def files(one, other):
    """Compares which files there are and how large they are; whichever steps the checkpoints are of."""
    right, sizes = _sizes(one), _sizes(other)
    different = [f"{name} is missing" for name in right.keys() - sizes.keys()]
    different += [f"{name} is left over" for name in sizes.keys() - right.keys()]
    for name in right.keys() & sizes.keys():
        if len(right[name]) != len(sizes[name]):
            different.append(f"{name}: {len(sizes[name])} of them, not {len(right[name])}")
        elif abs(sum(sizes[name]) - sum(right[name])) > SMALLEST_DIFFERENCE + SIZE_TOLERANCE * sum(right[name]):
            different.append(f"{name} has {sum(sizes[name]):,} bytes, not {sum(right[name]):,}")
    return sum(map(len, right.values())), sorted(different)


def _compare_values(right, values):
    """Compares dictionaries; what they hold are arrays, bit for bit, or values with `==`."""
    different = [f"{name} is missing" for name in right.keys() - values.keys()]
    different += [f"{name} is left over" for name in values.keys() - right.keys()]
    different += [f"{name} differs" for name in right.keys() & values.keys() if not _same(right[name], values[name])]
    return len(right), sorted(different)


def _same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


def _checkpoint_values(folder):
    checkpoints = CheckpointFiles(folder)
    if not (steps := checkpoints.complete()):
        return {}
    reader = tf.train.load_checkpoint(checkpoints.prefix(steps[-1]))
    return {name: np.asarray(reader.get_tensor(name)) for name in reader.get_variable_to_dtype_map()}


def _model_values(workdir):
    values = {}
    for path in sorted(workdir.glob("*.keras")):
        with zipfile.ZipFile(path) as archive:
            values[f"{path.name} config"] = archive.read("config.json")
            with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
                weights.visititems(_collector(values, path.name))
    return values


def _collector(values, prefix):
    def collect(name, item):
        if isinstance(item, h5py.Dataset):
            values[f"{prefix} {name}"] = np.asarray(item)

    return collect


def _lines(workdir):
    lines = [json.loads(line) for line in (workdir / METRICS).read_text(encoding="utf-8").splitlines()]
    return [_without_times(line) for line in lines]


def _records(workdir):
    values = {path.name: path.read_text(encoding="utf-8") for path in workdir.glob("*.csv")}
    for path in workdir.glob("*.json"):
        if path.name == ENVIRONMENT:  # which has a segment for each start
            continue
        values[path.name] = _without_times(json.loads(path.read_text(encoding="utf-8")))
    return values


def _without_times(mapping):
    return {name: value for name, value in mapping.items() if name not in TIMES}


def _sizes(workdir):
    sizes = collections.defaultdict(list)
    for path in sorted(workdir.rglob("*")):
        if path.name == ENVIRONMENT:  # which has a segment for each start
            continue
        name = re.sub(r"(?<=^ckpt-)\d+", "STEP", path.name)
        sizes[str(path.relative_to(workdir).with_name(name))].append(path.stat().st_size if path.is_file() else 0)
    return sizes


# Functions of two workdirs to the number of things compared and a line for each difference.
COMPARISONS = {
    "variables of the newest checkpoint": checkpoint_variables,
    "weights of saved models": saved_models,
    "lines of metrics": metrics,
    "other records": records,
    "files": files,
}
