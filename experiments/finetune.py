"""Fine-tuning: a classifier learns from labelled images, on top of a pretrained encoder or from scratch.

`experiments.segmentation` adapts it to predict a class for each pixel.
"""

import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from convnext.backbone import ConvNeXt
from convnext.types import Tensor
from convnext.weights.loader import load_pretrained
from experiments.config import Config, FinetuneConfig
from experiments.data.augmentation.mixing import Mixing
from experiments.data.augmentation_picture import augmented_examples, draw_augmentation
from experiments.data.source import Split
from experiments.data.sources import open_source
from experiments.data.splits import label_subset
from experiments.errors import UserError
from experiments.evaluation.class_reports import draw_confusion, write_class_report, write_multi_label_report
from experiments.evaluation.classification import (
    Predictions,
    classification_metrics,
    confusion,
    notes_on_predictions,
    top_one,
)
from experiments.io import replacing
from experiments.models import make_classifier
from experiments.optim.param_groups import LayerDecay
from experiments.training.callbacks import evenly_spaced
from experiments.training.guards import best_effort
from experiments.training.losses import balanced_class_weights, cross_entropy
from experiments.training.run import Run, Task, run_task
from experiments.training.validation import Validation
from experiments.types import Batch, Log, Metrics, Path


def run(
    config: Config, workdir: str | os.PathLike[str], resume: str = "auto", log: Log = print
) -> dict[str, Any] | None:
    """Fine-tunes a model, or resumes the run in the workdir; arguments, result and errors are those of `run_task`.

    The field `finetune.task` of the configuration says which model, `pretrained` what the encoder starts from.
    """
    from experiments.segmentation import Segmentation  # which is made of the task below

    task = Segmentation if config.finetune.task == "segmentation" else Finetuning
    return run_task(task, config, workdir, resume, log)


class Finetuning(Task):
    """Fine-tuning of a classifier on the labelled images of the split `train`, or a share of them.

    Images of several classes, or `multi_label`, make it a multi-label one: a sigmoid for each class instead of a
    softmax for all, and metrics `map` and `f1` instead of `top1`.
    """

    name = "finetune"
    training: FinetuneConfig
    split: Split
    model_name = "classifier"  # of the files of the models

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.layer_decay = LayerDecay(
            config.model.stages[0], self.training.layer_decay, self.training.layer_decay_groups
        )
        self.ema_decay = self.training.ema_decay
        self._open_images()

    def _open_images(self) -> None:
        config, training = self.config, self.training
        self.source = open_source(config.data)
        if not self.source.num_classes:
            raise UserError(f"{self.source.name} has no labels to fine-tune on.")
        if training.multi_label:
            self.source = self.source.as_multi_label()
        classes = self.source.num_classes, self.source.label_sets
        self.split = label_subset(self.source.split("train"), training.labels, classes[0], config.seed, classes[1])
        self.mixing = Mixing.of(training, *classes)
        self._class_weights: np.ndarray | None = None
        if training.class_weights == "balanced":
            self._class_weights = balanced_class_weights(self.split.labels, self.source.class_names, classes[1])

    def make_model(self, dtype: str) -> keras.Model:
        return make_classifier(self.config, self.source.num_classes, dtype)

    def encoder(self, model: keras.Model) -> ConvNeXt:
        return model

    def example_losses(self, model: keras.Model) -> Callable[[Batch], Tensor]:
        return cross_entropy(model, self._class_weights, self.training.frozen_encoder, self._is_multi_label)

    def callbacks(self, run: Run) -> list[keras.callbacks.Callback]:
        self._validation: Validation | None = None
        if held_out := self.source.get("validation"):
            predict = self._predictions(run, held_out)
            at_steps = evenly_spaced(self.training.evaluations, run.schedule)
            best = f"{self.model_name}_best.keras"
            self._validation = Validation(run, lambda: self._metrics(*predict()), self._metric, at_steps, best)
        return [self._pictures(run), *([self._validation] if self._validation else [])]

    def finish(self, run: Run) -> dict[str, Any]:
        """Saves the models, and evaluates them on the test images, on which nothing is chosen. For a classifier:

        - `classifier.keras` has the final weights of the run, whatever its metrics;
        - `classifier_ema.keras`, where there is a moving average, the average of the end;
        - `classifier_best.keras`, where there are validation images, the weights that were best on those at some
          evaluation, plain or average.

        A report on `classifier.keras` covers the test images, or the validation images where there are none or
        `report_test` is off: `report_test.csv` and, but for a multi-label one, `confusion_test.png`.
        """
        model, validation = run.model, self._validation
        results = {"classes": list(self.source.class_names), "pretrained": self.config.pretrained, **self._facts}
        results |= validation.final() if validation else {}
        test = self.source.get("test") if self.training.report_test else None
        reported = test or self.source.get("validation")
        predict: Any = self._predictions(run, reported) if reported else None
        run.save(model, f"{self.model_name}.keras")
        if reported:
            evaluated = predict()
            if run.workers.is_chief:
                self._report(run, "test" if test else "validation", evaluated)
        if test:
            results |= {f"test_{name}": value for name, value in self._metrics(*evaluated).items()}
        if run.averages:
            with run.averages.in_place():
                run.save(model, f"{self.model_name}_ema.keras")
                if test:
                    results |= {f"test_{name}_ema": value for name, value in self._metrics(*predict()).items()}
        if validation:
            if run.workers.is_chief:  # whose files they are: others might see earlier ones
                record = validation.best.record
                assert record is not None
                results |= {f"best_{name}": value for name, value in record.items()}
            if test:
                if run.workers.is_chief:
                    self._load(model, validation.best.path)  # all others are saved
                run.workers.share_weights(model)
                results |= {f"best_test_{name}": value for name, value in self._metrics(*predict()).items()}
        return results

    def _predictions(self, run: Run, split: Split) -> Callable[[], tuple[Any, ...]]:
        label_sets = self.source.label_sets
        return Predictions(run.model, split, run.preprocessing, run.evaluation_batch_size, label_sets, run.devices)

    def _load(self, model: keras.Model, path: Path) -> None:
        load_pretrained(model, path)

    @property
    def _facts(self) -> dict[str, Any]:
        """What the summary says of the model beside its classes."""
        return {"multi_label": True} if self._is_multi_label else {}

    @property
    def _metric(self) -> str:
        """The metric by which the best weights are chosen."""
        return "map" if self._is_multi_label else "top1"

    def _metrics(self, *evaluated: Any) -> Metrics:
        """Returns the metrics of what a call of `_predictions` returns."""
        return classification_metrics(*evaluated)

    @property
    def _is_multi_label(self) -> bool:
        return self.source.label_sets is not None

    def _report(self, run: Run, name: str, evaluated: tuple[Any, ...]) -> None:
        """Writes the report on a split, of what a call of `_predictions` returns."""
        labels, predicted, unreadable = evaluated
        names = self.source.class_names
        for note in notes_on_predictions(name, self.source.split(name).num_examples, unreadable):
            run.log(note)
        with replacing(run.workdir / f"report_{name}.csv") as path:
            if self._is_multi_label:
                write_multi_label_report(path, labels, predicted, names)
                return
            matrix = confusion(labels, predicted, len(names))
            write_class_report(path, matrix, names)
        share = f"top-1 {top_one(labels, predicted):.2f}% of {len(labels):,} images"
        with replacing(run.workdir / f"confusion_{name}.png") as path:
            draw_confusion(path, matrix, names, f"{name} images of {self.source.name}: {share}")

    def _pictures(self, run: Run) -> keras.callbacks.Callback:
        return keras.callbacks.LambdaCallback(on_train_begin=lambda logs: self._draw_augmentation(run))

    def _draw_augmentation(self, run: Run) -> None:
        """Draws `augmentation.png` when a run begins."""
        path, seed = run.workdir / "augmentation.png", self.config.seed
        if path.exists() or not (examples := augmented_examples(self.split, run.preprocessing, seed)):
            return
        assert self.mixing is not None
        with best_effort(path):
            with replacing(path) as temporary:
                names, shown = self.source.class_names, self.config.data.shown
                draw_augmentation(temporary, examples, run.preprocessing, self.mixing, names, seed, shown)
            run.loggers.pictures(0, {"augmentation": path})
