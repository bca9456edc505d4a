"""Fine-tuning: a classifier learns from labelled images, on top of a pretrained encoder or from scratch."""

import keras

from convnext.weights.loader import load_pretrained
from experiments.data.augmentation.mixing import Mixing
from experiments.data.picture import augmented_examples, draw_augmentation
from experiments.data.sources import open_source
from experiments.data.splits import label_subset
from experiments.errors import UserError
from experiments.evaluation.classification import Predictions, TopOne, top_one
from experiments.evaluation.report import draw_confusion, write_report
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
    """Fine-tunes a classifier, or goes on with it; arguments, result and errors are those of `run_task`.

    The field `pretrained` of the configuration names what the encoder starts from.
    """
    return run_task(Finetuning, config, workdir, resume, log)


class Finetuning(Task):
    """Fine-tuning of a classifier on the labelled images of the split `train`, or a share of them."""

    name = "finetune"

    def __init__(self, config):
        super().__init__(config)
        training = self.training
        self.source = open_source(config.data)
        if not self.source.num_classes:
            raise UserError(f"{self.source.name} has no labels to fine-tune on.")
        self.split = label_subset(self.source.split("train"), training.labels, self.source.num_classes, config.seed)
        self.layer_decay = LayerDecay(config.model.stages[0], training.layer_decay, training.layer_decay_groups)
        self.ema_decay = training.ema_decay
        self.mixing = Mixing.of(training, self.source.num_classes)
        self._class_weights = None
        if training.class_weights == "balanced":
            self._class_weights = balanced_class_weights(self.split.labels, self.source.class_names)

    def make_model(self, dtype):
        return make_classifier(self.config, self.source.num_classes, dtype)

    def encoder(self, model):
        return model

    def example_losses(self, model):
        return cross_entropy(model, self._class_weights, self.training.frozen_encoder)

    def callbacks(self, run):
        draw = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: self._draw_augmentation(run))
        self._validation = None
        if held_out := self.source.get("validation"):
            top_one_of_model = TopOne(run.model, held_out, run.preprocessing, run.evaluation_batch_size)
            at_steps = evenly_spaced(self.training.evaluations, run.schedule)
            self._validation = Validation(run, top_one_of_model, at_steps)
        return [draw, self._validation] if self._validation else [draw]

    def finish(self, run):
        """Saves the classifiers, and evaluates them on the test images, which never choose.

        - `classifier.keras` has the weights of the end of the run, whatever its figures;
        - `classifier_ema.keras`, where there is a moving average, the average of the end;
        - `classifier_best.keras`, where there are validation images, the weights that were best on those at some
          evaluation, plain or average.

        Of `classifier.keras` there is a report on the test images, or on the validation images where there are none or
        `report_test` is off: `report_test.csv` and `confusion_test.png`.
        """
        model, validation = run.model, self._validation
        results = {"classes": list(self.source.class_names), "pretrained": self.config.pretrained}
        results |= validation.final() if validation else {}
        test = self.source.get("test") if self.training.report_test else None
        predict = self._predictions(run, test) if test else None
        save_model(model, run.workdir / "classifier.keras")
        if test:
            labels, predicted = predict()
            results["test_top1"] = top_one(labels, predicted)
            self._report(run, "test", labels, predicted)
        elif validation:
            self._report(run, "validation", *self._predictions(run, self.source.get("validation"))())
        if run.averages:
            with run.averages.in_place():
                save_model(model, run.workdir / "classifier_ema.keras")
                if test:
                    results["test_top1_ema"] = top_one(*predict())
        if validation:
            results |= {f"best_{name}": value for name, value in validation.best.record.items()}
            if test:
                load_pretrained(model, validation.best.path)  # all others are saved
                results["best_test_top1"] = top_one(*predict())
        return results

    def _predictions(self, run, split):
        return Predictions(run.model, split, run.preprocessing, run.evaluation_batch_size)

    def _report(self, run, name, labels, predicted):
        names = self.source.class_names
        with replacing(run.workdir / f"report_{name}.csv") as path:
            write_report(path, labels, predicted, names)
        with replacing(run.workdir / f"confusion_{name}.png") as path:
            draw_confusion(path, labels, predicted, names, f"{name} images of {self.source.name}")

    def _draw_augmentation(self, run):
        """Draws `augmentation.png` when a run begins."""
        path, seed = run.workdir / "augmentation.png", self.config.seed
        if path.exists() or not (examples := augmented_examples(self.split, run.preprocessing, seed)):
            return
        with best_effort(path):
            with replacing(path) as temporary:
                draw_augmentation(temporary, examples, run.preprocessing, self.mixing, self.source.class_names, seed)
            run.loggers.pictures(0, {"augmentation": path})
