"""Where metrics and pictures of a run go: JSON lines in the workdir, and Weights & Biases."""

import json

import keras

from experiments.errors import UserError
from experiments.paths import append, is_url, replacing
from experiments.training.omission import going_on_without

METRICS = "metrics.jsonl"


class Tracker:
    """Writes each line of metrics to `metrics.jsonl` and, if asked for, to Weights & Biases.

    A resumed run drops the lines after its checkpoint, so each step appears once.

    Args:
        workdir: of the run.
        config: the `Config`.
    """

    def __init__(self, workdir, config):
        self._workdir = workdir
        self._config = config

    def begin(self, start_step):
        """Opens the record of a run of which `start_step` steps are done."""
        _drop_lines_after(self._workdir / METRICS, start_step)
        self._unwritten = ""
        self._step, self._metrics = start_step, {}
        self._wandb = _start_wandb(self._workdir, self._config, start_step)

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
        with going_on_without(self._workdir / METRICS):  # the next line brings what is missing
            append(self._workdir / METRICS, self._unwritten)
            self._unwritten = ""
        if self._wandb:
            self._wandb.log(self._metrics, step=self._step)
        self._metrics = {}

    def picture(self, step, name, path):
        """Records a picture that lies in a file."""
        if self._wandb:
            import wandb

            self._wandb.log({name: wandb.Image(str(path))}, step=step)

    def close(self):
        """Ends the record."""
        self.flush()
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
    """Returns the lines of a run's metrics as dictionaries."""
    path = workdir / METRICS
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def _drop_lines_after(path, step):
    lines = read_metrics(path.parent)
    kept = [line for line in lines if line["step"] <= step] if step else []
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


def _start_wandb(workdir, config, start_step):
    settings = config.wandb
    if settings.mode == "disabled":
        return None
    import wandb

    name = settings.name or workdir.name
    try:
        return wandb.init(
            mode=settings.mode,
            project=settings.project,
            # A run that goes on is a new segment: an offline run cannot be continued.
            name=f"{name}-from-{start_step}" if start_step else name,
            group=name,
            dir=None if is_url(workdir) else str(workdir),
            config=config.to_dict(),
        )
    except wandb.errors.Error as error:
        raise UserError(f"wandb.mode={settings.mode}: {error} Try --config.wandb.mode=offline.") from error
