"""Validation during fine-tuning: metrics of the weights and of their moving average; the best weights are kept."""

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import keras

from experiments.errors import UserError
from experiments.io import remove
from experiments.training.callbacks import Measure
from experiments.training.workdir import read_json, save_model, write_json
from experiments.types import Metrics, Path

if TYPE_CHECKING:
    from experiments.training.run import Run

BEST_MODEL, BEST_RECORD = "classifier_best.keras", "best.json"  # the former of a classifier


class Best:
    """The weights with the highest metric on the validation images so far; of equal ones the earliest.

    They are in the workdir, in the file `name`, described by `best.json`, so a resumed run finds them. The model is
    written first: if the run is killed between the two writes, it repeats that step.

    Args:
        model: the model.
        workdir: of the run.
        metric: name of the figure, such as `validation_top1`; in percent.
        name: of the file.
    """

    def __init__(
        self, model: keras.Model, workdir: Path, metric: str = "validation_top1", name: str = BEST_MODEL
    ) -> None:
        self._model = model
        self._workdir = workdir
        self._metric = metric
        self._name = name

    @property
    def path(self) -> Path:
        return self._workdir / self._name

    @property
    def record(self) -> dict[str, Any] | None:
        """`{"step", "epoch", "weights": "plain" or "ema", metric: figure}`, or None before the first evaluation.

        Raises:
            UserError: if it is damaged.
        """
        path = self._workdir / BEST_RECORD
        if not path.exists() or not self.path.exists():
            return None
        remedy = "delete it, and the best of the evaluations that follow is kept"
        record = read_json(path, remedy, "step", "epoch", "weights", self._metric)
        figure = record[self._metric]
        is_percent = isinstance(figure, (int, float)) and 0 <= figure <= 100
        if not is_percent or not isinstance(record["step"], int):
            raise UserError(f"{path} is damaged: {remedy}.")
        return record

    def drop_after(self, step: int) -> None:
        """Drops a record from a step that the run will repeat, or that belongs to another configuration."""
        record = self.record
        if record and record["step"] > step:
            remove(self._workdir / BEST_RECORD)

    def consider(self, step: int, epoch: float, weights: str, figure: float) -> None:
        """Saves the current weights, if they are better than all before.

        Args:
            step: number of steps that are done.
            epoch: number of epochs that are done.
            weights: `plain` or `ema`.
            figure: on the validation images.
        """
        before = self.record
        if before is None or figure > before[self._metric]:
            save_model(self._model, self.path)
            record = {"step": step, "epoch": round(epoch, 4), "weights": weights, self._metric: figure}
            write_json(self._workdir / BEST_RECORD, record)


class Validation(Measure):
    """Evaluates a model, and the moving average of its weights, on the validation images, and keeps the best.

    Args:
        run: the `Run`.
        evaluate: function without arguments that returns the metrics of the model's current weights, `{name: percent}`.
        metric: name of the metric that selects the best weights.
        at_steps: the steps.
        best_model: name of the file of the best weights.

    Attributes:
        best: the `Best`.
    """

    def __init__(
        self,
        run: "Run",
        evaluate: Callable[[], Metrics],
        metric: str,
        at_steps: Iterable[int],
        best_model: str = BEST_MODEL,
    ) -> None:
        super().__init__(self._evaluate, run, at_steps)
        self._figures = evaluate
        self._metric = f"validation_{metric}"
        self.best = Best(run.model, run.workdir, self._metric, best_model)
        _ = self.best.record  # a damaged one ends the run at its start

    def on_train_begin(self, logs: Metrics | None = None) -> None:
        if self._run.workers.is_chief:
            self.best.drop_after(self._run.start_step)

    def _evaluate(self, step: int) -> Metrics:
        averages = self._run.averages
        held: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
            "": contextlib.nullcontext,
            **({"_ema": averages.in_place} if averages else {}),
        }
        figures: Metrics = {}
        for suffix, in_place in held.items():
            with in_place():
                figures |= {f"validation_{name}{suffix}": figure for name, figure in self._figures().items()}
                if self._run.workers.is_chief:
                    chosen, epoch = figures[self._metric + suffix], step / self._run.schedule.steps_per_epoch
                    self.best.consider(step, epoch, suffix[1:] or "plain", chosen)
        return figures
