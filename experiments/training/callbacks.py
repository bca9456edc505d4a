"""Callbacks of a run: logging, measurements, provenance, profiling, and progress on the terminal."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf
from tqdm import tqdm

from experiments.errors import UserError
from experiments.optim.adamw import learning_rate_schedule
from experiments.provenance import command_line, now, provenance
from experiments.training.distributed.strategy import describe_devices
from experiments.training.guards import best_effort
from experiments.training.loggers import read_metrics
from experiments.training.schedule import Schedule
from experiments.training.workdir import read_json, write_json
from experiments.types import Metrics, Path

if TYPE_CHECKING:
    from experiments.training.run import Run

ENVIRONMENT, PROFILE = "environment.json", "profile"
SECONDS_BETWEEN_LINES = 15  # of progress where there is no terminal
SECONDS_BETWEEN_RECORDS = 60


class LogMetrics(keras.callbacks.Callback):
    """Passes the metrics of the loop, and the learning rate, to the loggers of a `Run`."""

    def __init__(self, run: "Run") -> None:
        super().__init__()
        self._run, self._rate = run, learning_rate_schedule(run.training, run.schedule)

    def on_train_batch_end(self, batch: int, logs: Metrics | None = None) -> None:
        if logs:
            # The latest step used the rate at its own index, and the optimizer counts no skipped steps.
            latest = max(0, int(self._run.optimizer.iterations.value.numpy()) - 1)
            self._run.loggers.scalars(batch, {**logs, "learning_rate": float(self._rate(latest))})


class Measure(keras.callbacks.Callback):
    """Logs measurements of the model after some steps; all workers take part.

    Args:
        measure: function of the step that returns metrics, `{name: number}`.
        run: the `Run`.
        at_steps: the steps.
    """

    def __init__(self, measure: Callable[[int], Metrics], run: "Run", at_steps: Iterable[int]) -> None:
        super().__init__()
        self._measure, self._run, self.at_steps = measure, run, set(at_steps)
        self._latest: Metrics | None = None

    def on_train_batch_end(self, batch: int, logs: Metrics | None = None) -> None:
        if batch in self.at_steps:
            self._latest = self._measure(batch)
            self._run.loggers.scalars(batch, self._latest)

    def final(self) -> Metrics:
        """Returns the metrics at the end of the run."""
        return self._latest or self._measure(self._run.schedule.total_steps)


class LogOnce(keras.callbacks.Callback):
    """Logs metrics of the whole run once, at the step at which it starts.

    A resumed run logs them only if its metrics lack them.

    Args:
        names: of the metrics.
        measure: function without arguments that returns the metrics, `{name: number}`.
        run: the `Run`.
    """

    def __init__(self, names: Sequence[str], measure: Callable[[], Metrics], run: "Run") -> None:
        super().__init__()
        self._names, self._measure, self._run = names, measure, run

    def on_train_begin(self, logs: Metrics | None = None) -> None:
        if len(self.final()) < len(self._names):
            self._run.loggers.scalars(self._run.start_step, self._measure())
            self._run.loggers.flush()

    def final(self) -> Metrics:
        """Returns the metrics as they were logged."""
        lines = read_metrics(self._run.workdir)
        return {name: line[name] for line in lines for name in self._names if name in line}


class RecordProvenance(keras.callbacks.Callback):
    """Records the command, hardware and versions of a run in `environment.json`.

    `segments` has an entry for each start, with `command`; `from_step`, `to_step` and `total_steps`; the number of
    training `images`; `started`, `last_seen` (at most a minute old, or the time between two lines of metrics) and
    `ended`, None until then; `devices` and `gpus`, the names of the latter; `precision`; `hardware`, `versions`,
    `commit` and `uncommitted_changes`, see `provenance`.

    Args:
        run: the `Run`, restored.
    """

    def __init__(self, run: "Run") -> None:
        super().__init__()
        self._path = run.workdir / ENVIRONMENT
        self._earlier = _recorded(self._path)
        facts = provenance()
        started = facts.pop("time")
        self._entry = {
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

    def on_train_begin(self, logs: Metrics | None = None) -> None:
        self._write()

    def on_train_batch_end(self, batch: int, logs: Metrics | None = None) -> None:
        self._entry["to_step"] = batch
        if logs and time.monotonic() - self._written_at >= SECONDS_BETWEEN_RECORDS:
            self._write()

    def on_train_end(self, logs: Metrics | None = None) -> None:
        self._entry["ended"] = now()
        self._write()

    def _write(self) -> None:
        self._entry["last_seen"] = now()
        self._written_at = time.monotonic()
        with best_effort(self._path):
            write_json(self._path, {"segments": [*self._earlier, self._entry]})


class Profile(keras.callbacks.Callback):
    """Profiles some steps with TensorFlow's profiler, for TensorBoard; a failure is a warning.

    A run that resumes between these steps profiles the rest; a run that resumes after them profiles nothing.

    Args:
        run: the `Run`, restored, whose `config.profile_steps` are the first and the last of these steps.

    Raises:
        UserError: if the run ends before the first of them.

    Attributes:
        at_steps: steps after which the profiler starts and stops.
    """

    def __init__(self, run: "Run") -> None:
        super().__init__()
        self._first, self._last = run.config.profile_steps
        total = run.schedule.total_steps
        if self._first > total:
            raise UserError(f"profile_steps={self._first},{self._last} is beyond the end of the run at step {total:,}.")
        self._run, self._folder, self._is_running = run, run.workdir / PROFILE, False
        self.at_steps = {self._first - 1, self._last}

    def on_train_begin(self, logs: Metrics | None = None) -> None:
        self._begin_after(self._run.start_step)

    def on_train_batch_end(self, batch: int, logs: Metrics | None = None) -> None:
        if batch == self._last:
            self._stop()
        else:
            self._begin_after(batch)

    def on_train_end(self, logs: Metrics | None = None) -> None:
        self._stop()

    def _begin_after(self, step: int) -> None:
        if not self._is_running and self._first <= step + 1 <= self._last:
            with best_effort(self._folder):
                tf.profiler.experimental.start(str(self._folder))
                self._is_running = True

    def _stop(self) -> None:
        if self._is_running:
            self._is_running = False
            with best_effort(self._folder):
                tf.profiler.experimental.stop()
                self._run.log(f"profile written to {self._folder}: view it with tensorboard --logdir={self._folder}")


class ProgressBar(keras.callbacks.Callback):
    """Shows images done, time left, images/s and the loss: a bar on a terminal, elsewhere a line every 15 seconds.

    The images/s are those of the metrics; the time left includes evaluation and checkpoints.

    Args:
        run: the `Run`.
    """

    def __init__(self, run: "Run") -> None:
        super().__init__()
        self._run, self._batch_size = run, run.training.batch_size
        self._start_step, self._total_steps = run.start_step, run.schedule.total_steps
        self._loss, self._unreadable, self._shown_at = None, 0, 0.0

    def on_train_begin(self, logs: Metrics | None = None) -> None:
        self._bar = tqdm(
            desc=self._run.task.name,
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

    def on_train_batch_end(self, batch: int, logs: Metrics | None = None) -> None:
        if logs:
            self._loss = logs["loss"]
            self._unreadable += int(logs["unreadable"])
            rate = f"{logs['images_per_second']:,.0f} img/s"
            self._bar.set_postfix_str(f"{rate}, loss={self._loss:.4f}{self._note()}", refresh=False)
        self._bar.update(self._batch_size)
        now = time.monotonic()
        finished = batch == self._total_steps
        if self._bar.disable and logs and (finished or now - self._shown_at >= SECONDS_BETWEEN_LINES):
            self._shown_at = now
            self._run.log(self._line(batch, now, logs["images_per_second"]))

    def on_train_end(self, logs: Metrics | None = None) -> None:
        self._bar.close()

    def _note(self) -> str:
        return f", {self._unreadable:,} unreadable" if self._unreadable else ""

    def _line(self, step: int, now: float, images_per_second: float) -> str:
        rate = (step - self._start_step) / max(now - self._began, 1e-9)
        left = tqdm.format_interval((self._total_steps - step) / rate)
        return (
            f"{self._run.task.name}  step {step:,}/{self._total_steps:,}  loss {self._loss:.4f}{self._note()}  "
            f"{images_per_second:,.0f} img/s  {left} left"
        )


def evenly_spaced(count: int, schedule: Schedule) -> list[int]:
    """Returns `count` steps spread evenly over a run, the last of them its end; at most one per epoch.

    Args:
        count: number of steps; 0 for none.
        schedule: the `Schedule` of the run.
    """
    count = min(count, max(1, schedule.total_steps // schedule.steps_per_epoch))
    return [round(schedule.total_steps * (i + 1) / count) for i in range(count)]


def _recorded(path: Path) -> list[dict[str, Any]]:
    """Returns the entries of the record; none if the file is missing or damaged."""
    try:
        return list(read_json(path)["segments"])
    except (UserError, LookupError, TypeError):
        return []


def _gpu_names() -> list[str]:
    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
