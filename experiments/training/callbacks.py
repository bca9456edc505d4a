"""What happens beside the steps of a run: measurements, pictures, progress on the terminal."""

import sys
import time

import keras
from tqdm import tqdm

from experiments.training.loggers import read_metrics

SECONDS_BETWEEN_LINES = 15


class LogMetrics(keras.callbacks.Callback):
    """Hands the metrics of the loop to the loggers, with the learning rate.

    Args:
        loggers: the `Loggers`.
        schedule: learning rate schedule, a function of the step.
    """

    def __init__(self, loggers, schedule):
        super().__init__()
        self._loggers = loggers
        self._schedule = schedule

    def on_train_batch_end(self, batch, logs=None):
        if logs:
            # The step before this one used the rate at its own index.
            self._loggers.scalars(batch, {**logs, "learning_rate": float(self._schedule(batch - 1))})


class Measure(keras.callbacks.Callback):
    """Takes measurements of the model after some steps.

    Args:
        measure: function without arguments that returns metrics, `{name: number}`.
        loggers: the `Loggers`.
        at_steps: the steps.
    """

    def __init__(self, measure, loggers, at_steps):
        super().__init__()
        self._latest = None
        self._measure = measure
        self._loggers = loggers
        self.at_steps = set(at_steps)

    def on_train_batch_end(self, batch, logs=None):
        if batch in self.at_steps:
            self._latest = self._measure()
            self._loggers.scalars(batch, self._latest)

    def final(self):
        """Returns the metrics at the end of the run."""
        return self._measure() if self._latest is None else self._latest


class LogOnce(keras.callbacks.Callback):
    """Logs metrics that belong to a whole run once, however often it stops and goes on.

    They stand at the step at which the run begins. If it goes on and they are not on record, they are logged then.

    Args:
        names: of the metrics.
        measure: function without arguments that returns the metrics, `{name: number}`.
        run: the `Run`.
    """

    def __init__(self, names, measure, run):
        super().__init__()
        self._names = names
        self._measure = measure
        self._run = run

    def on_train_begin(self, logs=None):
        if len(self.final()) < len(self._names):
            self._run.loggers.scalars(self._run.start_step, self._measure())
            self._run.loggers.flush()

    def final(self):
        """Returns the metrics as they were logged."""
        lines = read_metrics(self._run.workdir)
        return {name: line[name] for line in lines for name in self._names if name in line}


class ProgressBar(keras.callbacks.Callback):
    """Shows images done, time left, images/s and the loss: a bar on a terminal, now and then a line elsewhere.

    The images/s are those of the metrics; the time left counts evaluation and checkpoints in.

    Args:
        run: the `Run`.
    """

    def __init__(self, run):
        super().__init__()
        self._name, self._log = run.task.name, run.log
        self._start_step, self._total_steps = run.start_step, run.schedule.total_steps
        self._batch_size = run.training.batch_size
        self._loss = None
        self._unreadable = 0
        self._shown_at = 0.0

    def on_train_begin(self, logs=None):
        self._bar = tqdm(
            desc=self._name,
            total=self._total_steps * self._batch_size,
            initial=self._start_step * self._batch_size,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} img [{elapsed}<{remaining}{postfix}]",
            disable=not sys.stderr.isatty(),
        )
        self._began = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if logs:
            self._loss = logs["loss"]
            self._unreadable += int(logs["unreadable"])
            rate = f"{logs['images_per_second']:,.0f} img/s"
            self._bar.set_postfix_str(f"{rate}, loss={self._loss:.4f}{self._losses()}", refresh=False)
        self._bar.update(self._batch_size)
        now = time.monotonic()
        finished = batch == self._total_steps
        if self._bar.disable and logs and (finished or now - self._shown_at >= SECONDS_BETWEEN_LINES):
            self._shown_at = now
            self._log(self._line(batch, now, logs["images_per_second"]))

    def on_train_end(self, logs=None):
        self._bar.close()

    def _losses(self):
        return f", {self._unreadable:,} unreadable" if self._unreadable else ""

    def _line(self, step, now, images_per_second):
        rate = (step - self._start_step) / max(now - self._began, 1e-9)
        left = tqdm.format_interval((self._total_steps - step) / rate)
        return (
            f"{self._name}  step {step:,}/{self._total_steps:,}  loss {self._loss:.4f}{self._losses()}  "
            f"{images_per_second:,.0f} img/s  {left} left"
        )


def evenly_spaced(count, schedule):
    """Returns `count` steps spread evenly over a run, the last of them its end; at most one an epoch.

    Args:
        count: number of steps; 0 for none.
        schedule: the `Schedule` of the run.
    """
    count = min(count, max(1, schedule.total_steps // schedule.steps_per_epoch))
    return [round(schedule.total_steps * (i + 1) / count) for i in range(count)]
