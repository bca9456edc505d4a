"""Validation during fine-tuning: top-1 of the weights and of their moving average; the best are kept."""

import contextlib

from experiments.errors import UserError
from experiments.io import remove
from experiments.training.callbacks import Measure
from experiments.training.workdir import read_json, save_model, write_json

PLAIN, AVERAGED = "validation_top1", "validation_top1_ema"
WEIGHTS = {PLAIN: "plain", AVERAGED: "ema"}
BEST_MODEL, BEST_RECORD = "classifier_best.keras", "best.json"


class Best:
    """The weights with the highest top-1 on the validation images so far; the earliest of equals.

    They are in the workdir, `classifier_best.keras`, described by `best.json`, so a resumed run knows them. The model
    is written first: if the run is killed between the two, it repeats that step.

    Args:
        model: the classifier.
        workdir: of the run.
    """

    def __init__(self, model, workdir):
        self._model = model
        self._workdir = workdir

    @property
    def path(self):
        """Path of the model."""
        return self._workdir / BEST_MODEL

    @property
    def record(self):
        """`{"step", "epoch", "weights": "plain" or "ema", "validation_top1"}`, or None before the first evaluation.

        Raises:
            UserError: if it is damaged.
        """
        path = self._workdir / BEST_RECORD
        if not path.exists() or not self.path.exists():
            return None
        remedy = "delete it, and the best of the evaluations that follow is kept"
        record = read_json(path, remedy, "step", "epoch", "weights", "validation_top1")
        top1 = record["validation_top1"]
        is_top1 = isinstance(top1, (int, float)) and 0 <= top1 <= 100
        if not is_top1 or not isinstance(record["step"], int):
            raise UserError(f"{path} is damaged: {remedy}.")
        return record

    def drop_after(self, step):
        """Drops a best of a step after the start of the run, which comes again or is of another configuration."""
        record = self.record
        if record and record["step"] > step:
            remove(self._workdir / BEST_RECORD)

    def consider(self, step, epoch, weights, top1):
        """Saves the current weights, if they are better than all before.

        Args:
            step: number of steps that are done.
            epoch: number of epochs that are done.
            weights: `plain` or `ema`.
            top1: on the validation images.
        """
        before = self.record
        if before is None or top1 > before["validation_top1"]:
            save_model(self._model, self.path)
            record = {"step": step, "epoch": round(epoch, 4), "weights": weights, "validation_top1": top1}
            write_json(self._workdir / BEST_RECORD, record)


class Validation(Measure):
    """Measures `validation_top1` and, with an average, `validation_top1_ema` of a classifier, and keeps the best.

    Args:
        run: the `Run`.
        top_one: function without arguments that returns the top-1 of the classifier as it is.
        at_steps: the steps.

    Attributes:
        best: the `Best`.
    """

    def __init__(self, run, top_one, at_steps):
        super().__init__(self._evaluate, run, at_steps)
        self._top_one = top_one
        self.best = Best(run.model, run.workdir)
        _ = self.best.record  # a damaged one ends the run at its start

    def on_train_begin(self, logs=None):
        self.best.drop_after(self._run.start_step)

    def _evaluate(self, step):
        averages = self._run.averages
        held = {PLAIN: contextlib.nullcontext, **({AVERAGED: averages.in_place} if averages else {})}
        figures = {}
        for name, in_place in held.items():
            with in_place():
                figures[name] = self._top_one()
                self.best.consider(step, step / self._run.schedule.steps_per_epoch, WEIGHTS[name], figures[name])
        return figures
