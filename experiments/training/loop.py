"""The training loop."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from experiments.errors import Interrupted, RunError
from experiments.training.checkpoint import Checkpoints
from experiments.training.distributed.workers import Agreement
from experiments.training.guards import Divergence, Interruption
from experiments.types import Batch, Metrics

if TYPE_CHECKING:
    from experiments.training.run import Run


def train(
    run: "Run",
    training_step: Callable[[Batch, tf.Tensor | None], Metrics],
    batches: Iterable[Batch],
    callbacks: Sequence[keras.callbacks.Callback],
    checkpoints: Checkpoints,
    stop: Interruption | Agreement,
    divergence: Divergence,
) -> None:
    """Runs the remaining steps.

    Values are read from the device only where metrics are logged, a checkpoint is written or a callback evaluates the
    model. During this, the clock of `images_per_second` is stopped until the next step begins.

    Args:
        run: the `Run`, restored.
        training_step: function from a batch, and a question to all workers, to a dictionary of scalar tensors, `loss`
            among them, as `step.make_training_step` returns it.
        batches: iterable of batches, beginning with that of step `start_step`.
        callbacks: Keras callbacks. `on_train_batch_end` gets the number of completed steps, and the metrics at steps at
            which they are logged. A slow callback does its work at these steps, or after the steps in its attribute
            `at_steps`, a set.
        checkpoints: the `Checkpoints` of the run.
        stop: an active `Interruption`, or the `Agreement` of several workers.
        divergence: the `Divergence` of the run.

    Raises:
        Interrupted: if the run was asked to stop; its state is saved.
        RunError: if the loss or a weight is not finite (the newest checkpoint is from before), or a checkpoint cannot
            be written (earlier ones stay).
    """
    callback_list = keras.callbacks.CallbackList(callbacks)
    callback_list.on_train_begin()
    try:
        _take_steps(run, training_step, batches, callback_list, checkpoints, stop, divergence)
    finally:
        callback_list.on_train_end()


def _take_steps(
    run: "Run",
    training_step: Callable[[Batch, tf.Tensor | None], Metrics],
    batches: Iterable[Batch],
    callbacks: keras.callbacks.CallbackList,
    checkpoints: Checkpoints,
    stop: Interruption | Agreement,
    divergence: Divergence,
) -> None:
    total_steps, steps_per_epoch = run.schedule.total_steps, run.schedule.steps_per_epoch
    window = Window(run.training.batch_size, checkpoints.window)
    save_every = run.config.checkpoint_every
    # Workers may disagree on the time, and only the chief saves.
    save_seconds = 60 * run.config.checkpoint_minutes if run.workers.is_chief else 0.0
    saved_at = time.monotonic()
    at_steps = set().union(*(getattr(callback, "at_steps", ()) for callback in callbacks.callbacks))

    for step, batch in zip(range(run.start_step + 1, total_steps + 1), batches):
        with tf.profiler.experimental.Trace("train", step_num=step, _r=1):  # marks the step in a profile
            metrics = dict(training_step(batch, stop.question()))
        stop.take_answer(metrics.pop("requests", None))
        window.add(metrics)
        last, is_stopping = step == total_steps, stop.requested
        log = last or step % run.config.log_every == 0
        is_due = save_every and step % save_every == 0 or save_seconds and time.monotonic() - saved_at >= save_seconds
        save = last or is_stopping or is_due
        if log or save or step in at_steps:
            window.stop()
        if log or save:
            metrics = window.metrics()
            divergence.check_losses(window.losses, window.skipped, step)
            _check_readable(metrics, step, run.training.batch_size, checkpoints)
        if save:
            divergence.check_weights(window.losses[-1], step)
        callbacks.on_train_batch_end(step, {"epoch": step / steps_per_epoch, **metrics} if log else None)
        if is_stopping:  # evaluation is the last thing that needs the other workers
            stop.release()
        run.loggers.flush()  # before the checkpoint: lines after it are dropped when the run resumes
        if log:
            window.clear()
        if save:  # last: if the run is killed before, the resumed run repeats all of the above
            checkpoints.save(step, window.to_text())
            saved_at = time.monotonic()
        if is_stopping:
            raise Interrupted(f"Stopped at step {step:,} of {total_steps:,}; run the same command to resume.")
        window.start()


class Window:
    """The metrics of the steps since the last logged line, and the time that these steps took.

    Metrics stay on the device until they are read. The clock starts at construction.

    Args:
        batch_size: images of a step.
        text: what `to_text` returned, to continue from; empty for an empty window.
    """

    def __init__(self, batch_size: int, text: str = "") -> None:
        self._batch_size = batch_size
        self._began: float | None = time.perf_counter()  # None while the clock is stopped
        self.clear()
        if text:
            self._steps = json.loads(text)

    def clear(self) -> None:
        """Empties the window; a stopped clock stays stopped."""
        self._steps = []
        self._timed_steps = 0
        self._seconds = 0.0

    def stop(self) -> None:
        """Waits until the device has computed all steps so far, then stops the clock."""
        self._read()
        if self._began is not None:
            self._seconds += time.perf_counter() - self._began
            self._began = None

    def start(self) -> None:
        if self._began is None:
            self._began = time.perf_counter()

    def add(self, metrics: Metrics) -> None:
        """Adds what a step returned, a dictionary of scalar tensors."""
        self._steps.append(metrics)
        self._timed_steps += 1

    def metrics(self) -> dict[str, float]:
        """Stops the clock and returns the means as floats, and `images_per_second`.

        For `unreadable` and `skipped_steps` it returns the sum, for `loss_scale` the latest value. Values of a skipped
        step that are not finite enter no mean.
        """
        self.stop()
        metrics = {}
        for name in self._steps[-1]:
            column = np.array([step[name] for step in self._steps if name in step])
            if name in ("unreadable", "skipped_steps"):
                metrics[name] = float(column.sum())
            elif name == "loss_scale":
                metrics[name] = float(column[-1])
            else:
                finite = column[np.isfinite(column)]
                metrics[name] = float(np.mean(finite if any(self.skipped) and finite.size else column))
        return {**metrics, "images_per_second": self._timed_steps * self._batch_size / self._seconds}

    @property
    def losses(self) -> list[float]:
        """The loss of each step since the last line, as floats."""
        self._read()
        return [step["loss"] for step in self._steps]

    @property
    def skipped(self) -> list[bool]:
        """Whether each of these steps was skipped, see `LossScale`."""
        self._read()
        return [bool(step.get("skipped_steps")) for step in self._steps]

    def to_text(self) -> str:
        """Returns the steps since the last line as a text."""
        self._read()
        return json.dumps(self._steps)

    def _read(self) -> None:
        self._steps = [{name: float(value) for name, value in step.items()} for step in self._steps]


def _check_readable(metrics: Metrics, step: int, batch_size: int, checkpoints: Checkpoints) -> None:
    """Raises RunError if no image of the last steps could be used."""
    if metrics["loss"] == 0.0 and metrics["unreadable"] >= batch_size:
        why = "each is unreadable or lacks the label that the task needs"
        raise RunError(f"No image up to step {step:,} can be used: {why}; {checkpoints.last_good}.")
