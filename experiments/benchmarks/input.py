"""How many images a second the input pipeline makes, with and without some of its stages, beside Pillow.

Candidates take turns, round after round, on all cores that the command may use. Figures are medians over the rounds;
candidates are compared within rounds. `python -m experiments.benchmarks.input` is the process of this project's
candidates, or of Pillow's.
"""

import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.benchmarks import harness
from experiments.benchmarks.photographs import write_photographs
from experiments.benchmarks.pillow import CROP_SCALE, PILLOW, SEED, PillowPipelines, images_of_folder
from experiments.config import (
    CROPS,
    DataConfig,
    FinetuneConfig,
    Section,
    height_and_width,
    kept_size,
    require,
    size_text,
)
from experiments.provenance import provenance
from experiments.types import Log

if TYPE_CHECKING:
    import tensorflow as tf

    from experiments.data.source import Split

FOLDER = "folder:"
NUM_CLASSES = 1000
MASK_PATCHES = 49  # for which pretraining draws noise
# Strengths as in fine-tuning of the paper's larger models; colour jitter as in many other recipes.
RANDAUGMENT = {"randaugment_magnitude": 9.0, "randaugment_noise": 0.5}
COLOR_JITTER = {"color_jitter": (0.4, 0.4, 0.4, 0.1)}
ERASING = {"erasing_probability": 0.25}
MIXING = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing": 0.1}
# The fields of `FinetuneConfig` that make a candidate of the pipeline; the others are pretraining or evaluation.
FINETUNING: dict[str, dict[str, Any]] = {
    "randaugment": RANDAUGMENT,
    "color_jitter": COLOR_JITTER,
    "erasing": ERASING,
    "mixing": MIXING,
    "finetuning": {**RANDAUGMENT, **ERASING, **MIXING},
}
STAGES = ("normalize", "pretraining", "pretraining_stream", *FINETUNING, "evaluation")
ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}


@dataclasses.dataclass(frozen=True)
class InputSettings(Section):
    """What is measured.

    Args:
        stages: names of `STAGES`, each a candidate beside Pillow's.
        source: where the images are from, as `data.source`; empty for files that are made for the benchmark.
        pillow_folder: folder whose images Pillow reads; empty for that of `source`, or the files that are made.
        crop: of training, as in the configuration.
        image_size: of the images that come out, in pixels: one number for squares, or `(height, width)`.
        batch_size: images of a batch.
        files: number of files that are made; each is read several times.
        file_size: their height and width in pixels.
        file_kilobytes: of each.
        rounds: how often every candidate has its turn.
        steps: batches of a turn.
        warmup: batches before each turn.
    """

    stages: tuple[str, ...] = STAGES
    source: str = ""
    pillow_folder: str = ""
    crop: str = "resized"
    image_size: int | tuple[int, ...] = 224
    batch_size: int = 64
    files: int = 128
    file_size: int | tuple[int, ...] = (375, 500)
    file_kilobytes: float = 110.0
    rounds: int = 5
    steps: int = 8
    warmup: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("image_size", "file_size"):
            object.__setattr__(self, name, kept_size(getattr(self, name), name))
        self.require_at_least(1, "batch_size", "files", "rounds", "steps", "warmup")
        require(self.stages, f"stages is empty: name one or more of {', '.join(STAGES)}.")
        self.require_one_of("stages", STAGES)
        self.require_distinct("stages")
        self.require_one_of("crop", CROPS)
        is_folder = self.source.startswith(FOLDER)
        if self.source:
            require("pretraining_stream" not in self.stages, "The stage pretraining_stream needs generated files.")
            require(self.pillow_folder or is_folder, f"pillow_folder is empty: Pillow cannot read {self.source}.")
        require(
            self.source or self.files >= self.batch_size,
            f"files={self.files} do not fill a batch of batch_size={self.batch_size}: use at least as many files.",
        )


def run(settings: InputSettings, log: Log = print) -> dict[str, Any]:
    """Measures, and prints a table.

    Args:
        settings: `InputSettings`.
        log: function that takes a line for the user.

    Returns:
        Everything measured, as plain values.

    Raises:
        RunError: if a candidate fails.
    """
    results = {"what": "input", "settings": dataclasses.asdict(settings), **provenance()}
    with tempfile.TemporaryDirectory() as folder:
        if settings.source or settings.pillow_folder:
            paths = images_of_folder(settings.pillow_folder or settings.source.removeprefix(FOLDER))
        else:
            size = height_and_width(settings.file_size)
            paths = write_photographs(folder, settings.files, SEED, size, 1e3 * settings.file_kilobytes)
        names = [str(path) for path in paths]
        results["mean_file_bytes"] = sum(map(os.path.getsize, names)) / len(names)
        kind = "files" if settings.source else f"JPEG files of {size_text(settings.file_size)}"
        facts = {
            "source": settings.source or "files made for the benchmark",
            "files": f"{len(names)} {kind}, {results['mean_file_bytes'] / 1e3:.1f} kB on average",
            "images": f"{size_text(settings.image_size)}, batches of {settings.batch_size}",
            "rounds": f"{settings.rounds} of {settings.steps} batches each, after {settings.warmup} warmup batches",
        }
        for line in harness.heading_lines("benchmark of the input pipeline", facts, results):
            log(line)
        task = {"settings": dataclasses.asdict(settings), "paths": names}
        module = "experiments.benchmarks.input"
        with (
            harness.Worker("pillow", module, {**task, "pillow": True}, ENVIRONMENT) as pillow,
            harness.Worker("tensorflow", module, {**task, "pillow": False}, ENVIRONMENT) as tensorflow,
        ):
            workers = dict.fromkeys(PILLOW, pillow) | dict.fromkeys(settings.stages, tensorflow)
            turns = harness.take_turns(workers, settings.rounds)
    results |= measured(settings, turns, tensorflow.opening["cores"])
    for line in report_lines(results):
        log(line)
    return results


def measured(settings: InputSettings, turns: Mapping[str, list[dict]], cores: int) -> dict[str, Any]:
    """Puts figures together.

    Args:
        settings: `InputSettings`.
        turns: `{candidate: turns}`, one per round, each with its `seconds`, `core_seconds` and `others_cores`.
        cores: that each candidate could use.

    Returns:
        `{"cores", "candidates": {name: figures}}`, each figure with its spread: `images_per_second` of all cores
        together, the same `images_per_second_per_core`, `core_seconds_per_image` in which cores worked, and
        `times_as_fast` as each of Pillow's candidates.
    """
    images, candidates = settings.steps * settings.batch_size, {}
    for name, own in turns.items():
        rates = [images / turn["seconds"] for turn in own]
        candidates[name] = {
            "images_per_second": harness.summarize(rates),
            "images_per_second_per_core": harness.summarize(rate / cores for rate in rates),
            "core_seconds_per_image": harness.summarize(turn["core_seconds"] / images for turn in own),
            "times_as_fast": {
                reference: harness.summarize(
                    its["seconds"] / turn["seconds"] for its, turn in zip(turns[reference], own)
                )
                for reference in PILLOW
            },
            "others_cores": [turn["others_cores"] for turn in own],
        }
    return {"cores": cores, "candidates": candidates}


def report_lines(results: Mapping[str, Any]) -> list[str]:
    """Returns the lines that show what `measured` returns."""
    columns = ("images/s", "(lowest - highest)", "per core", "core ms", *(f"times {name}" for name in PILLOW))
    rows = {}
    for name, figures in results["candidates"].items():
        speed = figures["images_per_second"]
        rows[name] = [
            f"{speed['median']:,.1f}",
            f"({speed['smallest']:,.1f} - {speed['largest']:,.1f})",
            f"{figures['images_per_second_per_core']['median']:,.1f}",
            f"{figures['core_seconds_per_image']['median'] * 1e3:.3f}",
            *(harness.spread(ratio, ".2f") for ratio in figures["times_as_fast"].values()),
        ]
    return [*harness.table_lines(columns, rows), *harness.load_lines(results["candidates"])]


class TensorFlowPipelines:
    """The candidates of `STAGES`.

    Args:
        settings: `InputSettings`.
        paths: of the files.
    """

    def __init__(self, settings: InputSettings, paths: Sequence[str]) -> None:
        self._settings, self._paths = settings, paths
        self._datasets: dict[str, Any] = {}

    def run(self, name: str) -> tuple[float, float, float]:
        """Has a candidate take its turn.

        Its first batches, in which it is set up, are not timed. Nothing of it runs after the turn.

        Returns:
            The seconds of the turn, those that cores have worked in it, and those of them in processes of its own.
        """
        if name not in self._datasets:
            self._datasets[name] = self.batches(name)
        batches = iter(self._datasets[name])
        for _ in range(self._settings.warmup):
            next(batches)
        started, worked = time.perf_counter(), time.process_time()
        for _ in range(self._settings.steps):
            next(batches)
        return time.perf_counter() - started, time.process_time() - worked, 0.0

    def batches(self, name: str) -> "tf.data.Dataset":
        """Returns the endless `tf.data.Dataset` of a candidate's batches."""
        from experiments.data.augmentation.mixing import Mixing
        from experiments.data.pipeline import evaluation_batches, training_batches
        from experiments.data.preprocessing import Preprocessing

        settings, split = self._settings, self._split(name.endswith("_stream"))
        data = DataConfig(image_size=settings.image_size, flip=name != "normalize")
        if name == "evaluation":
            return evaluation_batches(split, Preprocessing.of(data), settings.batch_size).repeat()
        training = FinetuneConfig(crop=settings.crop, crop_scale=CROP_SCALE, **FINETUNING.get(name, {}))
        patches = 0 if name in FINETUNING else MASK_PATCHES
        mixing = Mixing.of(training, NUM_CLASSES) if training.mixup_alpha else None
        preprocessing = Preprocessing.of(data, training)
        return training_batches(split, preprocessing, settings.batch_size, SEED, 0, patches, mixing)

    def _split(self, is_stream: bool) -> "Split":
        import tensorflow as tf

        from experiments.data.source import MemorySplit, StreamSplit
        from experiments.data.sources import open_source

        if self._settings.source:
            source = open_source(DataConfig(source=self._settings.source, validation_share=0.0, test_share=0.0))
            return source.split("train")
        labels = np.arange(len(self._paths)) % NUM_CLASSES
        if not is_stream:
            return MemorySplit(np.array([path.encode() for path in self._paths], dtype=object), labels, True)
        contents = [pathlib.Path(path).read_bytes() for path in self._paths]
        examples = tf.data.Dataset.from_tensor_slices((contents, labels))
        return StreamSplit(examples, len(labels), shuffle_buffer=len(labels))


def _start(task: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[str], dict]]:
    """Makes the pipelines of one kind; see `serve`. A request names the candidate whose turn it is."""
    settings = InputSettings(**task["settings"])
    cores = len(os.sched_getaffinity(0))
    paths = task["paths"]
    pipelines = PillowPipelines(settings, paths, cores) if task["pillow"] else TensorFlowPipelines(settings, paths)

    def turn(name: str) -> dict[str, Any]:
        load = harness.OthersLoad()
        seconds, core_seconds, elsewhere = pipelines.run(name)
        return {"seconds": seconds, "core_seconds": core_seconds, "others_cores": load.cores(elsewhere)}

    return {"cores": cores}, turn


if __name__ == "__main__":
    harness.serve(_start)
