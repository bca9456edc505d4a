"""Evaluation on the validation images in the course of a run."""

import keras


class Evaluate(keras.callbacks.Callback):
    """Evaluates the model after some steps.

    Args:
        name: of the metric.
        evaluate: function without arguments that returns the number.
        tracker: the `Tracker`.
        at_steps: the steps.

    Attributes:
        latest: the last value, or None.
    """

    def __init__(self, name, evaluate, tracker, at_steps):
        super().__init__()
        self.latest = None
        self._name = name
        self._evaluate = evaluate
        self._tracker = tracker
        self._at_steps = set(at_steps)

    def on_train_batch_end(self, batch, logs=None):
        if batch in self._at_steps:
            self.latest = float(self._evaluate())
            self._tracker.log(batch, {self._name: self.latest})


def evenly_spaced(count, total_steps):
    """Returns `count` steps spread evenly over a run, the last of them its end."""
    return [round(total_steps * (i + 1) / count) for i in range(count)]
