"""Does pretraining pay on small natural images? The whole answer in JAX on one accelerator, in minutes.

The same encoder is pretrained without labels, with several seeds, and fine-tuned with few labels and with many; so is
one with random weights. Validation images choose peak rate, mixing and length of each start, with the first seed; the
test images are read once, by what was chosen. Every run leaves a JSON file and is not repeated.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from PIL import Image

from convnext.weights.loader import load_pretrained
from experiments.config import Config, FinetuneConfig
from experiments.data.splits import at_most, held_out, label_subset
from experiments.errors import UserError
from experiments.evaluation.probes import effective_rank, feature_std, linear_top1
from experiments.jax_study import training as jax_training
from experiments.models import initial_weights, make_classifier, make_fcmae
from experiments.provenance import provenance
from experiments.training.schedule import Schedule
from experiments.types import Log

CHUNK = 100  # steps of one call of the compiled scan
WARMUP = 0.1  # share of the steps of fine-tuning
# From scratch all layers have one rate, and the decay is that of the paper's supervised training.
STARTS: dict[str, dict[str, Any]] = {"pretrained": {}, "scratch": {"layer_decay": 1.0, "weight_decay": 0.05}}
BATCH_SIZE = 128  # of fine-tuning
RATES = (5e-4, 1.5e-3, 4.5e-3)
MIXINGS: dict[str, dict[str, Any]] = {
    "mixed": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0},
    "plain": {"mixup_alpha": 0.0, "cutmix_alpha": 0.0},
}
PROBE_LABELS, FEATURE_IMAGES = 10000, 2048


@dataclasses.dataclass(frozen=True)
class ArraySplit:
    """Images `(N, H, W, C)` uint8 and labels `(N,)` in memory, with what `label_subset` needs of a split."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def num_examples(self) -> int:
        """Number of images."""
        return len(self.labels)

    def take(self, indices: np.ndarray) -> "ArraySplit":
        """Returns the examples at `indices`."""
        return ArraySplit(self.images[indices], self.labels[indices])


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Steps of fine-tuning with a number of labels.

    Args:
        labels: their number; 0 for all.
        steps: of the runs that choose rate and mixing, and then of longer ones, as long as validation gains.
        num_seeds: number of repetitions.
    """

    labels: int
    steps: tuple[int, ...]
    num_seeds: int = 3


LENGTHS = {
    length.labels: length
    for length in (
        Lengths(250, (600, 1800, 5400)),
        Lengths(1000, (1000, 3000, 9000)),
        Lengths(4000, (2000, 6000, 12000)),
        Lengths(0, (3500, 17500, 35000), num_seeds=1),
    )
}


def read_folder(folder: str, validation_share: float) -> dict[str, ArraySplit]:
    """Reads images of one size from `folder/{train,test}/CLASS/`, and holds out validation images by the usual rule.

    Returns:
        The splits `train`, `validation` and `test`.

    Raises:
        UserError: if there are no images, or images of several sizes.
    """
    splits = {}
    for split in ("train", "test"):
        files = sorted(path for path in pathlib.Path(folder, split).glob("*/*") if path.is_file())
        if not files:
            raise UserError(f"{folder}/{split} has no images in sub-folders, one for each class.")
        classes = sorted({path.parent.name for path in files})
        with concurrent.futures.ThreadPoolExecutor() as pool:
            images = list(pool.map(lambda path: np.asarray(Image.open(path).convert("RGB")), files))
        if len({image.shape for image in images}) > 1:
            raise UserError(f"{folder}/{split} has images of several sizes; all must have the same size.")
        labels = np.array([classes.index(path.parent.name) for path in files])
        splits[split] = ArraySplit(np.stack(images), labels)
    train, validation = held_out(splits["train"].num_examples, (validation_share,))
    return {**splits, "train": splits["train"].take(train), "validation": splits["train"].take(validation)}


class JaxStudy:
    """The runs of the study in a folder.

    Args:
        config: the `Config`, whose sections on the model, the data and both kinds of training are used.
        splits: what `read_folder` returns.
        root: folder of the records.
        log: function that takes a line for the user.
    """

    def __init__(self, config: Config, splits: Mapping[str, ArraySplit], root: str, log: Log = print) -> None:
        finetune = dataclasses.replace(
            config.finetune, batch_size=BATCH_SIZE, randaugment_magnitude=0.0, erasing_probability=0.0
        )
        self.config = dataclasses.replace(config, finetune=finetune)
        self.splits, self.root, self.log = splits, pathlib.Path(root), log
        self.num_classes = int(splits["train"].labels.max()) + 1
        self._on_device = functools.cache(lambda split: jnp.asarray(splits[split].images))

    def pretrain(self, seed: int) -> None:
        """Pretrains an encoder; ten times on the way it is probed on validation images and can be resumed from."""
        folder = self.root / f"seed_{seed}" / "pretraining"
        if (folder / "record.json").exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        training, train = self.config.pretrain, self.splits["train"]
        with initial_weights(seed):
            model = make_fcmae(dataclasses.replace(self.config, seed=seed))
        trainer = jax_training.pretraining(model, training, self.config.data)
        schedule = Schedule.of(training, train.num_examples)
        total = _in_chunks(schedule.total_steps)
        rates = jax_training.learning_rates(
            schedule.peak_learning_rate, total, schedule.warmup_steps, training.min_learning_rate
        )
        order = jax_training.shuffled(np.arange(train.num_examples), total, training.batch_size, seed)
        probe, ends = self._probe(model.backbone), {_in_chunks(total * tenth / 10) for tenth in range(1, 11)}
        done, curve = trainer.restore(folder / "state.npz")
        if not done:
            curve = [{"step": 0, "loss": None, **probe()}]
        began, first, losses = time.perf_counter(), done, []
        for start, images, peaks in self._chunks(order, rates, done):
            losses.append(trainer.run(self._on_device("train"), train.labels, images, peaks, _key(seed, start)))
            done = start + CHUNK
            if done in ends:
                trainer.store()
                curve.append({"step": done, "loss": float(np.mean(losses)), **probe()})
                losses = []
                model.backbone.save(folder / "encoder.keras")
                trainer.save(folder / "state.npz", done, curve)
                speed = (done - first) * training.batch_size / (time.perf_counter() - began)
                self.log(f"  pretraining, seed {seed}, step {done:,} of {total:,}: {curve[-1]}, {speed:,.0f} images/s")
        _write_json(folder / "record.json", {**self._origin(seed), "steps": total, "curve": curve})

    def finetune(self, lengths: Lengths, start: str) -> None:
        """Chooses rate, mixing and length with the first seed, then trains with the other seeds and reads the test."""
        folder = self.root / f"labels_{lengths.labels or 'all'}" / start
        choice = functools.partial(self._finetuned, folder, lengths, start, 0)
        runs = [choice(rate, mixing, lengths.steps[0]) for rate, mixing in itertools.product(RATES, MIXINGS)]
        best = max(runs, key=lambda run: run["validation_top1"])
        while best["rate"] in (edge := (min(run["rate"] for run in runs), max(run["rate"] for run in runs))):
            beyond = best["rate"] * (3 if best["rate"] == edge[1] else 1 / 3)
            runs.append(choice(beyond, best["mixing"], lengths.steps[0]))
            if runs[-1]["validation_top1"] <= best["validation_top1"]:
                break
            best = runs[-1]
        for steps in lengths.steps[1:]:
            longer = choice(best["rate"], best["mixing"], steps)
            if longer["validation_top1"] <= best["validation_top1"]:
                break
            best = longer
        for seed in range(lengths.num_seeds):
            settings = best["rate"], best["mixing"], best["steps"]
            run = self._finetuned(folder, lengths, start, seed, *settings, test=True)
            self.log(f"{run['labels']} labels, {start}, seed {seed}: {run['test_top1']:.2f}% with {settings}")

    def _finetuned(
        self,
        folder: pathlib.Path,
        lengths: Lengths,
        start: str,
        seed: int,
        rate: float,
        mixing: str,
        steps: int,
        test: bool = False,
    ) -> dict[str, Any]:
        """Returns the record of one run, which is done if it is not there yet."""
        path = folder / f"seed_{seed}_{mixing}_rate_{rate:.3g}_steps_{steps}{'_test' if test else ''}.json"
        if path.exists():
            return json.loads(path.read_text("utf-8"))
        began = time.perf_counter()
        model, trainer, logits_of = self._classifier(start, mixing)
        with initial_weights(seed):
            model.set_weights(self._new_classifier(start, mixing).get_weights())
        if start == "pretrained":
            load_pretrained(model, str(self.root / f"seed_{seed}" / "pretraining" / "encoder.keras"))
        trainer.restart()
        train = self.splits["train"]
        numbered = ArraySplit(np.arange(train.num_examples), train.labels)
        indices = label_subset(numbered, str(lengths.labels or "all"), self.num_classes, seed).images
        training = self.config.finetune
        order = jax_training.shuffled(indices, steps, training.batch_size, seed)
        rates = jax_training.learning_rates(rate, steps, round(WARMUP * steps), training.min_learning_rate)
        for at, images, peaks in self._chunks(order, rates):
            trainer.run(self._on_device("train"), train.labels, images, peaks, _key(seed, at))
        trainer.store()
        record = {
            **self._origin(seed, finetune=self._training(start, mixing)),
            **{"labels": len(indices), "start": start, "rate": rate, "mixing": mixing, "steps": steps},
        }
        for split in ("validation", "test") if test else ("validation",):
            predicted = logits_of(self._on_device(split)).argmax(-1)
            record[f"{split}_top1"] = 100.0 * float(np.mean(predicted == self.splits[split].labels))
            if split == "test":
                record["test_predictions"] = "".join(map(str, predicted.tolist()))
        record["seconds"] = round(time.perf_counter() - began, 1)
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(path, record)
        self.log(f"  {path.relative_to(self.root)}: {record['validation_top1']:.2f}%, {record['seconds']:.0f} s")
        return record

    @functools.cache  # noqa: B019  a study lives as long as its process
    def _classifier(self, start: str, mixing: str) -> tuple[keras.Model, jax_training.Trainer, Callable]:
        model = self._new_classifier(start, mixing)
        training = self._training(start, mixing)
        trainer = jax_training.finetuning(model, training, self.config.data, self.num_classes)
        return model, trainer, jax_training.outputs(model, self.config.data, features=False)

    def _training(self, start: str, mixing: str) -> FinetuneConfig:
        return dataclasses.replace(self.config.finetune, **STARTS[start], **MIXINGS[mixing])

    def _new_classifier(self, start: str, mixing: str) -> keras.Model:
        return make_classifier(
            dataclasses.replace(self.config, finetune=self._training(start, mixing)), self.num_classes
        )

    def _probe(self, encoder: keras.Model) -> Callable[[], dict[str, float]]:
        """Returns a function that scores the features of an encoder as it is on the validation images."""
        features_of = jax_training.outputs(encoder, self.config.data, features=True)
        train, validation = self.splits["train"], self.splits["validation"]
        spec = str(min(PROBE_LABELS, train.num_examples))
        labelled = label_subset(train, spec, self.num_classes, 0)
        numbered = ArraySplit(np.arange(validation.num_examples), validation.labels)
        some = at_most(numbered, FEATURE_IMAGES, 0).images
        images = jnp.asarray(labelled.images)

        def probe() -> dict[str, float]:
            fitted, scored = features_of(images), features_of(self._on_device("validation"))
            return {
                "linear": linear_top1((fitted, labelled.labels), None, (scored, validation.labels)),
                "feature_rank": effective_rank(scored[some]),
                "feature_std": feature_std(scored[some]),
            }

        return probe

    def _chunks(
        self, order: np.ndarray, rates: np.ndarray, done: int = 0
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for start in range(done, len(order), CHUNK):
            yield start, order[start : start + CHUNK], rates[start : start + CHUNK]

    def _origin(self, seed: int, **changes: Any) -> dict[str, Any]:
        device = jax.devices()[0]
        config = dataclasses.replace(self.config, seed=seed, **changes).to_dict()
        return {"seed": seed, "device": getattr(device, "device_kind", "cpu"), "config": config, **provenance()}


def _in_chunks(steps: float) -> int:
    """Returns a number of steps, rounded to whole chunks, at least one."""
    return max(round(steps / CHUNK), 1) * CHUNK


def _key(seed: int, step: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), step)


def _write_json(path: pathlib.Path, value: Any) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
