"""Fine-tuning: a classifier learns from labelled images, on top of a pretrained encoder or from scratch."""

import keras

from convnext.weights.loader import load_pretrained
from experiments.data.augmentation.mixing import Mixing
from experiments.data.picture import augmented_examples, draw_augmentation
from experiments.data.sources import open_source
from experiments.data.splits import label_subset
from experiments.errors import UserError
from experiments.evaluation.classification import Predictions, figures
from experiments.evaluation.report import draw_confusion, write_multi_label_report, write_report
from experiments.io import replacing
from experiments.models import make_classifier
from experiments.optim.param_groups import LayerDecay
from experiments.training.callbacks import evenly_spaced
from experiments.training.guards import best_effort
from experiments.training.losses import balanced_class_weights, cross_entropy
from experiments.training.run import Task, run_task
from experiments.training.validation import Validation
from experiments.training.workdir import save_model


def run(config, workdir, resume="auto", log=print):
    """Fine-tunes a classifier, or resumes the run in the workdir; arguments, result and errors are those of `run_task`.

    The field `pretrained` of the configuration names what the encoder starts from.
    """
    return run_task(Finetuning, config, workdir, resume, log)


class Finetuning(Task):
    """Fine-tuning of a classifier on the labelled images of the split `train`, or a share of them.

    Images of several classes, or `multi_label`, make it a multi-label one: a sigmoid for each class instead of a
    softmax for all, and figures `map` and `f1` instead of `top1`.
    """

    name = "finetune"

    def __init__(self, config):
        super().__init__(config)
        training = self.training
        self.source = open_source(config.data)
        if not self.source.num_classes:
            raise UserError(f"{self.source.name} has no labels to fine-tune on.")
        if training.multi_label:
            self.source = self.source.as_multi_label()
        classes = self.source.num_classes, self.source.label_sets
        self.split = label_subset(self.source.split("train"), training.labels, classes[0], config.seed, classes[1])
        self.layer_decay = LayerDecay(config.model.stages[0], training.layer_decay, training.layer_decay_groups)
        self.ema_decay = training.ema_decay
        self.mixing = Mixing.of(training, *classes)
        self._class_weights = None
        if training.class_weights == "balanced":
            self._class_weights = balanced_class_weights(self.split.labels, self.source.class_names, classes[1])

    def make_model(self, dtype):
        return make_classifier(self.config, self.source.num_classes, dtype)

    def encoder(self, model):
        return model

    def example_losses(self, model):
        return cross_entropy(model, self._class_weights, self.training.frozen_encoder, self._is_multi_label)

    def callbacks(self, run):
        draw = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: self._draw_augmentation(run))
        self._validation = None
        if held_out := self.source.get("validation"):
            predict = self._predictions(run, held_out)
            at_steps = evenly_spaced(self.training.evaluations, run.schedule)
            metric = "map" if self._is_multi_label else "top1"
            self._validation = Validation(run, lambda: figures(*predict()), metric, at_steps)
        return [draw, self._validation] if self._validation else [draw]

    def finish(self, run):
        """Saves the classifiers, and evaluates them on the test images, which never choose.

        - `classifier.keras` has the weights of the end of the run, whatever its figures;
        - `classifier_ema.keras`, where there is a moving average, the average of the end;
        - `classifier_best.keras`, where there are validation images, the weights that were best on those at some
          evaluation, plain or average.

        Of `classifier.keras` there is a report on the test images, or on the validation images where there are none or
        `report_test` is off: `report_test.csv` and, but for a multi-label one, `confusion_test.png`.
        """
        model, validation = run.model, self._validation
        results = {"classes": list(self.source.class_names), "pretrained": self.config.pretrained}
        if self._is_multi_label:
            results["multi_label"] = True
        results |= validation.final() if validation else {}
        test = self.source.get("test") if self.training.report_test else None
        predict = self._predictions(run, test) if test else None
        save_model(model, run.workdir / "classifier.keras")
        if test:
            labels, predicted = predict()
            results |= {f"test_{name}": value for name, value in figures(labels, predicted).items()}
            self._report(run, "test", labels, predicted)
        elif validation:
            self._report(run, "validation", *self._predictions(run, self.source.get("validation"))())
        if run.averages:
            with run.averages.in_place():
                save_model(model, run.workdir / "classifier_ema.keras")
                if test:
                    results |= {f"test_{name}_ema": value for name, value in figures(*predict()).items()}
        if validation:
            results |= {f"best_{name}": value for name, value in validation.best.record.items()}
            if test:
                load_pretrained(model, validation.best.path)  # all others are saved
                results |= {f"best_test_{name}": value for name, value in figures(*predict()).items()}
        return results

    def _predictions(self, run, split):
        label_sets = self.source.label_sets
        return Predictions(run.model, split, run.preprocessing, run.evaluation_batch_size, label_sets)

    @property
    def _is_multi_label(self):
        return self.source.label_sets is not None

    def _report(self, run, name, labels, predicted):
        names = self.source.class_names
        with replacing(run.workdir / f"report_{name}.csv") as path:
            write = write_multi_label_report if self._is_multi_label else write_report
            write(path, labels, predicted, names)
        if self._is_multi_label:
            return
        with replacing(run.workdir / f"confusion_{name}.png") as path:
            draw_confusion(path, labels, predicted, names, f"{name} images of {self.source.name}")

    def _draw_augmentation(self, run):
        """Draws `augmentation.png` when a run begins."""
        path, seed = run.workdir / "augmentation.png", self.config.seed
        if path.exists() or not (examples := augmented_examples(self.split, run.preprocessing, seed)):
            return
        with best_effort(path):
            with replacing(path) as temporary:
                names, shown = self.source.class_names, self.config.data.shown
                draw_augmentation(temporary, examples, run.preprocessing, self.mixing, names, seed, shown)
            run.loggers.pictures(0, {"augmentation": path})
