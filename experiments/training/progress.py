"""What a person sees while a run works."""

import sys
import time

import keras
from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15


class ProgressBar(keras.callbacks.Callback):
    """Shows images done, time left, images/s and the loss: a bar on a terminal, now and then a line elsewhere.

    The images/s of a line are those of the metrics; the time left counts evaluation and checkpoints in.

    Args:
        description: what works, in a word.
        course: the `Course` of the run.
        say: function that takes a line for the user.
    """

    def __init__(self, description, course, say):
        super().__init__()
        self._description = description
        self._course = course
        self._say = say
        self._loss = None
        self._unreadable = 0
        self._shown_at = 0.0

    def on_train_begin(self, logs=None):
        course = self._course
        self._bar = tqdm(
            desc=self._description,
            total=course.total_steps * course.batch_size,
            initial=course.start_step * course.batch_size,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
            disable=not sys.stderr.isatty(),
        )
        self._began = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if logs:
            self._loss = logs["loss"]
            self._unreadable += int(logs["unreadable"])
            self._bar.set_postfix_str(f"loss={self._loss:.4f}{self._losses()}", refresh=False)
        self._bar.update(self._course.batch_size)
        now = time.monotonic()
        finished = batch == self._course.total_steps
        if self._bar.disable and logs and (finished or now - self._shown_at >= SECONDS_BETWEEN_LINES):
            self._shown_at = now
            self._say(self._line(batch, now, logs["images_per_second"]))

    def on_train_end(self, logs=None):
        self._bar.close()

    def _losses(self):
        return f", {self._unreadable:,} unreadable" if self._unreadable else ""

    def _line(self, step, now, images_per_second):
        course = self._course
        rate = (step - course.start_step) / max(now - self._began, 1e-9)
        left = tqdm.format_interval((course.total_steps - step) / rate)
        return (
            f"{self._description}  step {step:,}/{course.total_steps:,}  loss {self._loss:.4f}{self._losses()}  "
            f"{images_per_second:,.0f} img/s  {left} left"
        )
