"""The training loop."""

import dataclasses
import math
import time

import keras
import numpy as np

from experiments.errors import Interrupted, RunError


@dataclasses.dataclass(frozen=True)
class Course:
    """Where a run begins, where it ends, and at which steps something happens on the way.

    Args:
        start_step: steps that are done.
        total_steps: steps of the whole run.
        steps_per_epoch: steps of an epoch.
        batch_size: images of a step.
        log_every: steps between two lines of metrics.
        checkpoint_every: steps between two checkpoints.
    """

    start_step: int
    total_steps: int
    steps_per_epoch: int
    batch_size: int
    log_every: int
    checkpoint_every: int


def train(training_step, batches, course, callbacks, checkpoints, interruption):
    """Runs the steps that are left.

    Nothing is read from the device but where metrics are logged or a checkpoint is written.

    Args:
        training_step: function from a batch to a dictionary of scalar tensors, `loss` among them.
        batches: iterable of batches, beginning with that of step `start_step`.
        course: a `Course`.
        callbacks: Keras callbacks. `on_train_batch_end` gets the number of steps that are done, and metrics at
            those steps where they are logged; `on_epoch_end` the number of epochs that are done.
        checkpoints: the `Checkpoints` of the run.
        interruption: an active `Interruption`.

    Raises:
        Interrupted: if the run was asked to stop; its state is saved.
        RunError: if the loss is no longer finite; the newest checkpoint is from before.
    """
    callbacks = keras.callbacks.CallbackList(callbacks)
    callbacks.on_train_begin()
    try:
        _run_steps(training_step, batches, course, callbacks, checkpoints, interruption)
    finally:
        callbacks.on_train_end()


def _run_steps(training_step, batches, course, callbacks, checkpoints, interruption):
    window = Window(course.batch_size)
    for step, batch in zip(range(course.start_step + 1, course.total_steps + 1), batches):
        window.add(training_step(batch))
        last = step == course.total_steps
        stop = interruption.requested and not last
        log = last or step % course.log_every == 0
        save = last or stop or step % course.checkpoint_every == 0
        if log or save:
            metrics = window.metrics()
            _check_finite(metrics, step, checkpoints)
        if save:
            checkpoints.save(step)
        callbacks.on_train_batch_end(step, {"epoch": step / course.steps_per_epoch, **metrics} if log else None)
        if log:
            window.clear()
        if step % course.steps_per_epoch == 0:
            callbacks.on_epoch_end(step // course.steps_per_epoch)
        if stop:
            raise Interrupted(
                f"Stopped at step {step:,} of {course.total_steps:,}; the same command goes on from there."
            )


class Window:
    """The metrics of the steps since the last line; they stay on the device until they are asked for.

    Args:
        batch_size: images of a step.
    """

    def __init__(self, batch_size):
        self._batch_size = batch_size
        self.clear()

    def clear(self):
        """Begins anew."""
        self._steps = []
        self._began = time.perf_counter()

    def add(self, metrics):
        """Adds what a step returned."""
        self._steps.append(metrics)

    def metrics(self):
        """Returns the means as floats, and `images_per_second`; `unreadable` is a sum."""
        seconds = time.perf_counter() - self._began
        values = {name: [float(step[name]) for step in self._steps] for name in self._steps[0]}
        means = {
            name: float(np.sum(column) if name == "unreadable" else np.mean(column)) for name, column in values.items()
        }
        return {**means, "images_per_second": len(self._steps) * self._batch_size / seconds}


def _check_finite(metrics, step, checkpoints):
    if math.isfinite(metrics["loss"]):
        return
    good = f"the last good checkpoint is {checkpoints.latest}" if checkpoints.latest else "there is no checkpoint yet"
    raise RunError(
        f"The loss is {metrics['loss']} at step {step:,}; {good}. A lower base_learning_rate, a longer warmup or "
        "clip_norm may help."
    )
