"""A study: a question, and the trials that answer it, each with a folder and a configuration of its own."""

import dataclasses
import functools
import pathlib
import typing

import keras

from convnext.weights.loader import load_pretrained
from experiments import finetune, pretrain
from experiments.config import Config, TrainingConfig
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import open_source
from experiments.data.splits import label_subset
from experiments.errors import RunError
from experiments.evaluation.classification import Predictions, top_one
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.probes import knn_top1, linear_top1
from experiments.models import make_random_encoder
from experiments.studies.budgets import METRIC, Budget, Length
from experiments.training.guards import RECORD as DIVERGED
from experiments.training.schedule import REFERENCE_BATCH
from experiments.training.workdir import SUMMARY, read_json, write_json
from experiments.types import Log

TRAINING = {"pretrain": pretrain, "finetune": finetune}
RESULT_FILES = {"pretrain": SUMMARY, "finetune": SUMMARY, "test": "test.json", "probe": "probes.json"}
WARMUP = 0.1  # share of the steps
T = typing.TypeVar("T", bound=TrainingConfig)


@dataclasses.dataclass(frozen=True)
class Trial:
    """One unit of work.

    A fine-tuning run that diverges, because its rate is too high, counts with a top-1 of 0, and the study goes on. To
    try it once more, remove its `nonfinite.json`.

    Args:
        root: folder of the study.
        task: `pretrain`, `finetune`, `test` or `probe`.
        name: of its own folder, relative to that of the study.
        config: its `Config`; None while the rate is not chosen.
        work: function that does what is left, of the trial and a function that takes a line for the user.
        after: the trial that has to be complete before, or None.
        length: `(steps, batch size)` of its training; zeros for none.
    """

    root: pathlib.Path
    task: str
    name: str
    config: Config | None
    work: typing.Callable
    after: "Trial | None" = None
    length: tuple[int, int] = (0, 0)

    @property
    def folder(self) -> pathlib.Path:
        return self.root / self.name

    @property
    def has_diverged(self) -> bool:
        """Whether it is a fine-tuning run whose loss or weights were no longer finite."""
        return self.task == "finetune" and (self.folder / DIVERGED).exists()

    @property
    def result(self) -> dict[str, typing.Any] | None:
        """Its figures, `{name: value}`; None before it is complete."""
        if self.has_diverged:
            return {METRIC: 0.0}
        path = self.folder / RESULT_FILES[self.task]
        return read_json(path) if path.exists() else None

    @property
    def is_due(self) -> bool:
        """Whether it is not complete, and what it depends on is."""
        after_all = self.after is None or (self.after.result is not None and not self.after.has_diverged)
        return self.config is not None and after_all and self.result is None


ResultOf = typing.Callable[[Trial], dict[str, typing.Any] | None]


@dataclasses.dataclass(frozen=True)
class Study:
    """A question, and the trials that answer it.

    Subclasses have `collect(result_of)`, which asks for the results of the trials, those worth most first, and returns
    plain values for the report; `result_of` is a function from a trial to its result, None while it is open, and may
    run the trial. `tables(results)` returns tables, each `(header, rows)` of texts; `draw(results, path)` draws a PNG
    file. They have a `name`, a `title` of the picture, `budgets` by name, and `num_seeds`, the number of repetitions
    by default.

    Args:
        root: its folder.
        config: the `Config` that its trials change parts of.
        budget: its `Budget`.
        seeds: of the repetitions; the first of them chooses rates.
        num_images: number of training images.
    """

    root: pathlib.Path
    config: Config
    budget: Budget
    seeds: tuple[int, ...]
    num_images: int

    name: typing.ClassVar[str]
    title: typing.ClassVar[str]
    budgets: typing.ClassVar[dict[str, Budget]]
    num_seeds: typing.ClassVar[int]
    collect: typing.ClassVar[typing.Callable[..., dict]]
    tables: typing.ClassVar[typing.Callable[..., list]]
    draw: typing.ClassVar[typing.Callable[..., None]]

    def trials(self) -> list[Trial]:
        """Returns the trials as far as they are known, in their order, each once."""
        trials: dict[tuple[str, str], Trial] = {}

        def result_of(trial: Trial) -> dict[str, typing.Any] | None:
            # The run of a rate may be the final one as well.
            return trials.setdefault((trial.task, trial.name), trial).result

        self.collect(result_of)
        return list(trials.values())

    def num_labels(self, length: Length) -> int:
        """Returns the number of labelled images of a `Length`."""
        return self.num_images if length.labels == "all" else int(length.labels)

    def pretraining(self, name: str, config: Config, seed: int, steps: int = 0) -> Trial:
        """Returns the trial that pretrains with a `Config` and a seed; 0 steps are those of the budget."""
        training, steps = config.pretrain, steps or self.budget.pretraining_steps
        # Pictures and the loss on validation images only at the end.
        training = dataclasses.replace(training, pictures=1, probe_every=0)
        training = _with_length(training, steps, training.batch_size, self.num_images)
        config = dataclasses.replace(config, seed=seed, pretrain=training)
        return Trial(self.root, "pretrain", name, config, _train, length=(steps, training.batch_size))

    def finetuning(
        self,
        folder: str,
        config: Config,
        seed: int,
        length: Length,
        rate: float | None,
        encoder: Trial | None,
        choosing: bool = False,
    ) -> Trial:
        """Returns the trial that fine-tunes with a `Length` and a peak rate; the test images play no part in it.

        Args:
            folder: name of the folder for the runs of all rates.
            config: a `Config`, whose section on fine-tuning is completed.
            seed: of the weights, and of the choice of labels.
            length: its `Length`.
            rate: its peak rate; None while it is not chosen.
            encoder: the trial of pretraining that it starts from; None for random weights.
            choosing: whether the run is there to choose the rate, and may be shorter.
        """
        steps = (choosing and length.choice_steps) or length.steps
        if rate is None:
            # The run that will be chosen is one of those that choose, unless they are shorter.
            is_new = seed != self.seeds[0] or length.choice_steps
            size = (steps, length.batch_size) if is_new else (0, 0)
            return Trial(self.root, "finetune", f"{folder}/chosen_rate", None, _train, encoder, size)
        training = dataclasses.replace(config.finetune, labels=length.labels, report_test=False)
        training = _with_length(training, steps, length.batch_size, self.num_labels(length))
        training = dataclasses.replace(training, base_learning_rate=rate * REFERENCE_BATCH / length.batch_size)
        config = dataclasses.replace(config, seed=seed, finetune=training, pretrained=_start(encoder))
        name = f"{folder}/{'short_' if steps != length.steps else ''}rate_{rate:g}"
        return Trial(self.root, "finetune", name, config, _train, encoder, (steps, length.batch_size))

    def testing(self, final: Trial) -> Trial:
        """Returns the trial that takes the top-1 of a fine-tuned classifier, as its run ended, on the test images."""
        return Trial(self.root, "test", final.name, final.config, _test, final)

    def probing(self, name: str, config: Config, seed: int, encoder: Trial | None, labels: str, target: str) -> Trial:
        """Returns the trial that probes a frozen encoder: that of a trial of pretraining, or for None a random one.

        The `labels`, as `finetune.labels` takes them, are those that fine-tuning gets with the same seed. With `test`
        as the target the linear probe chooses its regularization on the validation images; with `validation` it has
        the default one.
        """
        config = dataclasses.replace(config, seed=seed, pretrained=_start(encoder))
        work = functools.partial(_probe, labels=labels, target=target)
        return Trial(self.root, "probe", name, config, work, encoder)


def _with_length(training: T, steps: int, batch_size: int, num_examples: int) -> T:
    """Returns a `TrainingConfig` with another length, of which a tenth is warmup."""
    warmup = WARMUP * steps / (num_examples // batch_size)
    return dataclasses.replace(training, steps=steps, batch_size=batch_size, evaluations=0, warmup_epochs=warmup)


def _start(encoder: Trial | None) -> str:
    return str(encoder.folder) if encoder else ""


def _train(trial: Trial, log: Log) -> None:
    try:
        TRAINING[trial.task].run(trial.config, trial.folder, log=lambda line: None)
        result = typing.cast(dict[str, typing.Any], trial.result)
        if METRIC in result:
            log(f"  top-1 {result[METRIC]:.2f}% on the validation images")
    except RunError as error:
        if not trial.has_diverged:
            raise
        log(f"  {error}")


def _test(trial: Trial, log: Log) -> None:
    classifier = keras.saving.load_model(trial.folder / "classifier.keras", safe_mode=True)
    config = typing.cast(Config, trial.config)
    data, batch_size = config.data, config.evaluation_batch()
    split = open_source(data).split("test")
    labels, predicted, _ = Predictions(classifier, split, Preprocessing.of(data), batch_size)()
    top1 = top_one(labels, predicted)
    write_json(trial.folder / RESULT_FILES[trial.task], {"test_top1": top1, "images": split.num_examples})
    log(f"  top-1 {top1:.2f}% on {split.num_examples:,} test images")


def _probe(trial: Trial, log: Log, labels: str, target: str) -> None:
    config = typing.cast(Config, trial.config)
    encoder = make_random_encoder(config)
    if config.pretrained:
        load_pretrained(encoder, config.pretrained)
    source = open_source(config.data)
    features_of = PooledFeatures(encoder, Preprocessing.of(config.data), config.evaluation_batch())
    scored = features_of(source.split(target))
    validation = features_of(source.split("validation")) if target != "validation" else None
    train = features_of(label_subset(source.split("train"), labels, source.num_classes, config.seed))
    top1 = {"knn": knn_top1(train, scored), "linear": linear_top1(train, validation, scored)}
    log(f"  {labels} labels: k-NN {top1['knn']:.2f}%, linear probe {top1['linear']:.2f}%")
    trial.folder.mkdir(parents=True, exist_ok=True)
    write_json(trial.folder / "config.json", {"task": trial.task, "config": config.to_dict()})
    write_json(trial.folder / RESULT_FILES[trial.task], {"target": target, "labels": labels, **top1})
