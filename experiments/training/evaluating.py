"""Evaluation on the validation images in the course of a run."""

import keras


class Measure(keras.callbacks.Callback):
    """Takes measurements of the model after some steps.

    Args:
        measure: function without arguments that returns metrics, `{name: number}`.
        tracker: the `Tracker`.
        at_steps: the steps.
    """

    def __init__(self, measure, tracker, at_steps):
        super().__init__()
        self._latest = None
        self._measure = measure
        self._tracker = tracker
        self.at_steps = set(at_steps)

    def on_train_batch_end(self, batch, logs=None):
        if batch in self.at_steps:
            self._latest = self._measure()
            self._tracker.log(batch, self._latest)

    def final(self):
        """Returns the metrics at the end of the run."""
        return self._measure() if self._latest is None else self._latest


class Evaluate(Measure):
    """Evaluates the model after some steps.

    Args:
        name: of the metric.
        evaluate: function without arguments that returns the number.
        tracker: the `Tracker`.
        at_steps: the steps.
    """

    def __init__(self, name, evaluate, tracker, at_steps):
        super().__init__(lambda: {name: float(evaluate())}, tracker, at_steps)
        self._name = name

    def final(self):
        """Returns the value at the end of the run."""
        return super().final()[self._name]


def evenly_spaced(count, plan):
    """Returns `count` steps spread evenly over a run, the last of them its end; at most one an epoch.

    Args:
        count: number of steps; 0 for none.
        plan: the `Plan` of the run.
    """
    count = min(count, max(1, plan.total_steps // plan.steps_per_epoch))
    return [round(plan.total_steps * (i + 1) / count) for i in range(count)]
