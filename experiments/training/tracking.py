"""Where metrics and pictures of a run go: JSON lines in the workdir, and Weights & Biases."""

import json

import keras

from experiments.io import FAULTS, StorageError, append, reason, replacing
from experiments.training.guards import best_effort
from experiments.training.wandb_run import start_wandb

METRICS = "metrics.jsonl"


class Tracker:
    """Writes each line of metrics to `metrics.jsonl` and, if asked for, to Weights & Biases.

    A resumed run drops the lines after its checkpoint, so each step appears once.

    Args:
        workdir: of the run.
        config: the `Config`.
        log: function that takes a line for the user.
    """

    def __init__(self, workdir, config, log=print):
        self._workdir = workdir
        self._config = config
        self._log = log

    def begin(self, start_step):
        """Opens the record of a run of which `start_step` steps are done."""
        _drop_lines_after(self._workdir / METRICS, start_step)
        self._unwritten = ""
        self._step, self._metrics = start_step, {}
        self._wandb = start_wandb(self._workdir, self._config, start_step, self._log)

    @property
    def step(self):
        """The step of the line that is being written; when a run begins, the number of steps that are done."""
        return self._step

    def recorded(self, names):
        """Returns the metrics of these names that are in the record, `{name: number}`, the newest of each."""
        lines = read_metrics(self._workdir)
        return {name: line[name] for line in lines for name in names if name in line}

    def log(self, step, metrics):
        """Takes metrics, `{name: number}`, of a step; all of one step make one line."""
        if step != self._step:
            self.flush()
        self._step = step
        self._metrics.update(metrics)

    def flush(self):
        """Writes the line of the current step, if it has one."""
        if not self._metrics:
            return
        self._unwritten += json.dumps({"step": self._step, **self._metrics}) + "\n"
        if self._wandb:
            self._wandb.log(self._metrics, step=self._step)
        self._metrics = {}
        self._write()

    def _write(self):
        with best_effort(self._workdir / METRICS):  # the next line, or the end, brings what is missing
            append(self._workdir / METRICS, self._unwritten)
            self._unwritten = ""

    def picture(self, step, name, path):
        """Records a picture that lies in a file."""
        if self._wandb:
            self._wandb.picture(name, path, step)

    def close(self):
        """Ends the record."""
        self.flush()
        if self._unwritten:
            self._write()
        if self._wandb:
            self._wandb.finish()


class FlushMetrics(keras.callbacks.Callback):
    """Writes the line of a step when all other callbacks have added to it.

    Args:
        tracker: a `Tracker`.
    """

    def __init__(self, tracker):
        super().__init__()
        self._tracker = tracker

    def on_train_batch_end(self, batch, logs=None):
        self._tracker.flush()


class LogMetrics(keras.callbacks.Callback):
    """Hands the metrics of the loop to a tracker, with the learning rate.

    Args:
        tracker: a `Tracker`.
        schedule: learning rate schedule, a function of the step.
    """

    def __init__(self, tracker, schedule):
        super().__init__()
        self._tracker = tracker
        self._schedule = schedule

    def on_train_batch_end(self, batch, logs=None):
        if logs:
            # The step before this one used the rate at its own index.
            self._tracker.log(batch, {**logs, "learning_rate": float(self._schedule(batch - 1))})


def read_metrics(workdir):
    """Returns the lines of a run's metrics as dictionaries; leaves out damaged ones, as one that was cut short.

    Raises:
        StorageError: if they cannot be read.
    """
    path = workdir / METRICS
    try:
        content = path.read_bytes() if path.exists() else b""
    except FAULTS as error:
        raise StorageError(f"{path} cannot be read: {reason(error)}.") from error
    return parse_metrics(content)[0]


def parse_metrics(content):
    """Parses `metrics.jsonl`.

    Args:
        content: bytes of the file.

    Returns:
        `(lines, damaged)`: the lines that are whole, mappings from a name to a number with an integer `step`; and how
        many are not, such as one that was cut short.
    """
    written = [line for line in content.splitlines() if line.strip()]
    lines = [line for line in map(_parsed, written) if line is not None]
    return lines, len(written) - len(lines)


def _parsed(line):
    try:
        metrics = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_line = isinstance(metrics, dict) and type(metrics.get("step")) is int
    return metrics if is_line and all(map(is_number, metrics.values())) else None


def is_number(value):
    """Whether a value from a JSON file is a number that a run could have written: no boolean, and no huge integer."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _drop_lines_after(path, step):
    lines = read_metrics(path.parent)
    kept = [line for line in lines if line["step"] <= step] if step else []
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
