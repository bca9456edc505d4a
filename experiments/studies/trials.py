"""The units of work of a study. Each has a folder below that of the study, and a file there once it is complete."""

import dataclasses
import pathlib
import typing

import keras

from convnext.weights.loader import load_pretrained
from experiments import finetune, pretrain
from experiments.config import Config
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import open_source
from experiments.data.splits import label_subset
from experiments.errors import RunError
from experiments.evaluation.classification import TopOne
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.probes import knn_top1, linear_top1
from experiments.models import make_random_encoder
from experiments.training.guards import RECORD as DIVERGED
from experiments.training.workdir import SUMMARY, read_json, write_json


@dataclasses.dataclass(frozen=True)
class Trial:
    """One unit of work.

    Args:
        root: folder of the study.
        name: of its own folder, relative to that.
        config: its `Config`; None while what it depends on is not complete.
        needs: trials that have to be complete before.
    """

    root: pathlib.Path
    name: str
    config: Config | None
    needs: tuple["Trial", ...] = ()

    task: typing.ClassVar[str]
    result_file: typing.ClassVar[str] = SUMMARY

    @property
    def folder(self):
        """Path of its folder."""
        return self.root / self.name

    @property
    def is_complete(self):
        """Whether its work is done."""
        return (self.folder / self.result_file).exists()

    @property
    def is_ready(self):
        """Whether all that it depends on is complete."""
        return self.config is not None and all(trial.is_complete for trial in self.needs)

    @property
    def result(self):
        """Its figures, `{name: value}`; None before it is complete."""
        return read_json(self.folder / self.result_file) if self.is_complete else None

    @property
    def images(self):
        """Number of images that it trains on, each time counted."""
        return 0

    def run(self, log):
        """Does the work, or what is left of it.

        Args:
            log: function that takes a line for the user.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class TrainingTrial(Trial):
    """What the trials that train share; `length` is `(steps, batch size)`."""

    length: tuple[int, int] = (0, 0)

    @property
    def images(self):
        return self.length[0] * self.length[1]


@dataclasses.dataclass(frozen=True)
class Pretraining(TrainingTrial):
    """Pretrains an encoder."""

    task = "pretrain"

    def run(self, log):
        pretrain.run(self.config, self.folder, log=_quiet)


@dataclasses.dataclass(frozen=True)
class Finetuning(TrainingTrial):
    """Fine-tunes a classifier; the test images play no part in it.

    A run that diverges, because its rate is too high, counts with a top-1 of 0, and the study goes on. To try it once
    more, remove its `nonfinite.json`.
    """

    task = "finetune"

    @property
    def has_diverged(self):
        """Whether it diverged."""
        return (self.folder / DIVERGED).exists()

    @property
    def is_complete(self):
        return super().is_complete or self.has_diverged

    @property
    def result(self):
        return {"validation_top1": 0.0} if self.has_diverged else super().result

    def run(self, log):
        try:
            finetune.run(self.config, self.folder, log=_quiet)
            log(f"  top-1 {self.result['validation_top1']:.2f}% on the validation images")
        except RunError as error:
            if not self.has_diverged:
                raise
            log(f"  {error}")


@dataclasses.dataclass(frozen=True)
class Testing(Trial):
    """Takes the top-1 of a fine-tuned classifier, as it was at the end of its run, on the test images."""

    task = "test"
    result_file = "test.json"

    @property
    def is_ready(self):
        return super().is_ready and not any(trial.has_diverged for trial in self.needs)

    def run(self, log):
        classifier = keras.saving.load_model(self.folder / "classifier.keras", safe_mode=True)
        data = self.config.data
        split = open_source(data).split("test")
        batch_size = self.config.evaluation_batch(self.config.finetune)
        top1 = TopOne(classifier, split, Preprocessing.of(data), batch_size)()
        write_json(self.folder / self.result_file, {"test_top1": top1, "images": split.num_examples})
        log(f"  top-1 {top1:.2f}% on {split.num_examples:,} test images")


@dataclasses.dataclass(frozen=True)
class Probing(Trial):
    """k-NN and linear probe of a frozen encoder, that of `config.pretrained` or a random one, by number of labels.

    The labelled images are those that fine-tuning gets with the same seed. With the test images as target the linear
    probe chooses its regularization on the validation images, else it has the default one.

    Args:
        labels: texts as `finetune.labels` takes them.
        target: split on which the figures are taken, `test` or `validation`.
    """

    labels: tuple[str, ...] = ("all",)
    target: str = "test"

    task = "probe"
    result_file = "probes.json"

    def run(self, log):
        config = self.config
        encoder = make_random_encoder(config)
        if config.pretrained:
            load_pretrained(encoder, config.pretrained)
        source = open_source(config.data)
        features_of = PooledFeatures(encoder, Preprocessing.of(config.data), config.evaluation_batch(config.pretrain))
        target = features_of(source.split(self.target))
        validation = features_of(source.split("validation")) if self.target != "validation" else None
        figures = {}
        for labels in self.labels:
            train = features_of(label_subset(source.split("train"), labels, source.num_classes, config.seed))
            figures[labels] = {"knn": knn_top1(train, target), "linear": linear_top1(train, validation, target)}
            log(f"  {labels} labels: k-NN {figures[labels]['knn']:.2f}%, linear probe {figures[labels]['linear']:.2f}%")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "config.json", {"task": self.task, "config": config.to_dict()})
        write_json(self.folder / self.result_file, {"target": self.target, "top1": figures})


def _quiet(line):
    del line
