"""What a run was started by, ran on and with, each time it was started: `environment.json` in its workdir."""

import time

import keras
import tensorflow as tf

from experiments.errors import UserError
from experiments.provenance import command_line, now, provenance
from experiments.training.distributed.strategy import describe_devices
from experiments.training.guards import best_effort
from experiments.training.workdir import read_json, write_json

ENVIRONMENT = "environment.json"
SECONDS_BETWEEN_WRITES = 60


class RecordSegment(keras.callbacks.Callback):
    """Adds a segment to `environment.json`: what is done between a start of the run and its next stop.

    A segment has `command`; `from_step`, `to_step` and `total_steps`; the number of training `images`; `started`,
    `last_seen` (at most a minute old, or the time between two lines of metrics) and `ended`, None until it has;
    `devices` and `gpus`, the names of the latter; `precision`; `hardware`, `versions`, `commit` and
    `uncommitted_changes`, see `provenance`.

    Args:
        run: the `Run`, restored.
    """

    def __init__(self, run):
        super().__init__()
        self._path = run.workdir / ENVIRONMENT
        self._earlier = _recorded(self._path)
        facts = provenance()
        started = facts.pop("time")
        self._segment = {
            "command": command_line(),
            "from_step": run.start_step,
            "to_step": run.start_step,
            "total_steps": run.schedule.total_steps,
            "images": run.split.num_examples,
            "started": started,
            "last_seen": started,
            "ended": None,
            "devices": describe_devices(run.workers.strategy, run.workers.count),
            "gpus": _gpu_names(),
            "precision": run.model.dtype_policy.name,
            **facts,
        }

    def on_train_begin(self, logs=None):
        self._write()

    def on_train_batch_end(self, batch, logs=None):
        self._segment["to_step"] = batch
        if logs and time.monotonic() - self._written_at >= SECONDS_BETWEEN_WRITES:
            self._write()

    def on_train_end(self, logs=None):
        self._segment["ended"] = now()
        self._write()

    def _write(self):
        self._segment["last_seen"] = now()
        self._written_at = time.monotonic()
        with best_effort(self._path):
            write_json(self._path, {"segments": [*self._earlier, self._segment]})


def _recorded(path):
    """Returns the segments that are on record; none where the file is missing or damaged."""
    try:
        return list(read_json(path)["segments"])
    except (UserError, LookupError, TypeError):
        return []


def _gpu_names():
    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
