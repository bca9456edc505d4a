"""How many images a second the input pipeline makes, with and without some of its stages, beside Pillow.

Candidates take turns, round after round, on all cores that the command may use. Figures are medians over the rounds;
candidates are compared within rounds. `python -m experiments.benchmarks.input` is the process of this project's
candidates, or of Pillow's.
"""

import dataclasses
import io
import math
import multiprocessing
import os
import pathlib
import random
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from experiments.benchmarks import harness
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

FOLDER = "folder:"
SEED = 0  # of files, order and augmentation
NUM_CLASSES = 1000
MASK_PATCHES = 49  # for which pretraining draws noise
CROP_SCALE = (0.2, 1.0)  # of the windows in training
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
PILLOW = {"pillow": False, "pillow_normalize": True}  # Pillow's candidates, and whether they normalize
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

    def __post_init__(self):
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
            require("pretraining_stream" not in self.stages, "The stage pretraining_stream is for files that are made.")
            require(self.pillow_folder or is_folder, f"pillow_folder is empty: Pillow cannot read {self.source}.")
        require(
            self.source or self.files >= self.batch_size,
            f"files={self.files} make no batch of batch_size={self.batch_size}: ask for as many files at least.",
        )


def run(settings: InputSettings, log: Callable = print) -> dict:
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


def measured(settings: InputSettings, turns: dict[str, list[dict]], cores: int) -> dict:
    """Puts figures together.

    Args:
        settings: `InputSettings`.
        turns: `{candidate: turns}`, one a round, each with its `seconds`, `core_seconds` and `others_cores`.
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


def report_lines(results: dict) -> list[str]:
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

    def __init__(self, settings: InputSettings, paths: list[str]):
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

    def batches(self, name: str):
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

    def _split(self, is_stream):
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


class PillowPipelines:
    """The candidates of `PILLOW`: the images of a turn are shared out among processes, one for each core.

    No image travels between processes: each is made and let go of, which favours Pillow.

    Args:
        settings: `InputSettings`.
        paths: of the files.
        cores: number of processes.
    """

    def __init__(self, settings: InputSettings, paths: list[str], cores: int):
        self._settings, self._paths, self._cores, self._turns = settings, paths, cores, 0
        self._pool = multiprocessing.get_context("spawn").Pool(cores)
        for name in PILLOW:
            self.run(name)  # so that every process has imported what it needs

    def run(self, name: str) -> tuple[float, float, float]:
        """See `TensorFlowPipelines.run`."""
        self._turns += 1
        settings = self._settings
        data, images = DataConfig(image_size=settings.image_size), settings.steps * settings.batch_size
        tasks = [
            (
                [self._paths[i % len(self._paths)] for i in range(part, images, self._cores)],
                data.size,
                (np.array(data.mean, np.float32), np.array(data.std, np.float32)) if PILLOW[name] else None,
                (SEED, self._turns, part),
            )
            for part in range(self._cores)
        ]
        started = time.perf_counter()
        worked = self._pool.map(_load_all, tasks, chunksize=1)
        return time.perf_counter() - started, sum(worked), sum(worked)


def _load_all(task):
    """Loads images and returns the seconds that this process has worked for them."""
    paths, size, normalization, seed = task
    generator, started = random.Random(str(seed)), time.process_time()
    for path in paths:
        load_with_pillow(path, size, normalization, generator)
    return time.process_time() - started


def load_with_pillow(path, size: tuple[int, int], normalization: tuple | None, generator: random.Random) -> np.ndarray:
    """Returns the image of a file as training in PyTorch may have it: decoded, cropped at random, resized, flipped.

    `Image.draft` has libjpeg decode at a half or less of the size where that leaves twice the target, as ours does.

    Args:
        path: of the file.
        size: `(height, width)` in pixels.
        normalization: mean and standard deviation of each channel, two float32 arrays; None for none.
        generator: of the random draws.

    Returns:
        `(*size, 3)`: float32 if normalized, else uint8.
    """
    with Image.open(path) as file:
        full, window = file.size, draw_window(*file.size, generator)
        ratio = max(
            ratio for ratio in (1, 2, 4, 8) if ratio == 1 or min(window[2] / size[1], window[3] / size[0]) >= 2 * ratio
        )
        if ratio > 1:
            file.draft("RGB", (full[0] // ratio, full[1] // ratio))
        image = file.convert("RGB")
    across, down = (new / old for new, old in zip(image.size, full))
    left, top, width, height = window
    window = round(left * across), round(top * down), round(width * across), round(height * down)
    image = crop_and_resize(image, window, size)
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image)
    if normalization is None:
        return pixels
    mean, std = normalization
    pixels = pixels.astype(np.float32)
    pixels /= 255.0
    pixels -= mean
    pixels /= std
    return pixels


def crop_and_resize(image: Image.Image, window: tuple[int, int, int, int], size: tuple[int, int]) -> Image.Image:
    """Returns the window `(left, top, width, height)` of an image, of `size`, `(height, width)`."""
    left, top, width, height = window
    return image.crop((left, top, left + width, top + height)).resize(size[::-1], Image.Resampling.BICUBIC)


def draw_window(width: int, height: int, generator: random.Random) -> tuple[int, int, int, int]:
    """Draws a window of random area and aspect ratio, as torchvision's `RandomResizedCrop` does.

    Returns:
        `(left, top, width, height)`; the whole image if ten draws do not fit.
    """
    for _ in range(10):
        area = width * height * generator.uniform(*CROP_SCALE)
        ratio = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        part_width, part_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < part_width <= width and 0 < part_height <= height:
            left, top = generator.randint(0, width - part_width), generator.randint(0, height - part_height)
            return left, top, part_width, part_height
    return 0, 0, width, height


FILE_TOLERANCE, QUALITY = 0.01, 95
LARGEST_NOISE = 64.0  # standard deviation, of values in [0, 255]
SMALLEST_SHARE = 0.7  # of a photograph's height that a part takes


def images_of_folder(folder: str) -> list[pathlib.Path]:
    """Returns the images in a folder and the folders in it.

    Raises:
        UserError: if there are none.
    """
    from experiments.data.decoding import is_image_name

    paths = sorted(path for path in pathlib.Path(folder).rglob("*") if is_image_name(path.name))
    require(paths, f"{folder} has no images for Pillow.")
    return paths


def write_photographs(
    folder: str | pathlib.Path, count: int, seed: int, size: tuple[int, int] = (375, 500), file_bytes: float = 110e3
) -> list[pathlib.Path]:
    """Writes JPEG files, by default as large as ImageNet's: parts of scikit-learn's two photographs with noise.

    Args:
        folder: where the files go, `0000.jpg` and so on.
        count: number of files.
        seed: integer; the files are a function of it.
        size: `(height, width)` in pixels.
        file_bytes: of each file; there is as much noise as fits.

    Returns:
        The paths.
    """
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    paths = []
    for i in range(count):
        generator = np.random.default_rng((seed, i))
        path = pathlib.Path(folder, f"{i:04}.jpg")
        pixels = _part(photographs[i % len(photographs)], size, generator)
        path.write_bytes(_file_of_right_size(pixels, file_bytes, generator))
        paths.append(path)
    return paths


def _part(photograph, size, generator):
    """Returns a random part of the right shape, `(*size, 3)` float64."""
    height = generator.uniform(SMALLEST_SHARE, 1.0) * photograph.height
    width = height * size[1] / size[0]
    left, top = (generator.uniform(0, whole - part) for whole, part in zip(photograph.size, (width, height)))
    box = (left, top, left + width, top + height)
    return np.asarray(photograph.resize(size[::-1], Image.Resampling.BICUBIC, box), np.float64)


def _file_of_right_size(pixels, file_bytes, generator):
    """Finds the strength of noise by halving the interval that it lies in: more noise makes a larger file."""
    noise = generator.normal(size=pixels.shape)
    low, high = 0.0, LARGEST_NOISE
    while True:
        middle = (low + high) / 2
        file = io.BytesIO()
        noisy = np.clip(pixels + middle * noise, 0, 255).round().astype(np.uint8)
        Image.fromarray(noisy).save(file, "jpeg", quality=QUALITY)
        if abs(file.tell() - file_bytes) <= FILE_TOLERANCE * file_bytes or high - low < 1e-3:
            return file.getvalue()
        low, high = (middle, high) if file.tell() < file_bytes else (low, middle)


def _start(task):
    """Makes the pipelines of one kind; see `serve`. A request names the candidate whose turn it is."""
    settings = InputSettings(**task["settings"])
    cores = len(os.sched_getaffinity(0))
    paths = task["paths"]
    pipelines = PillowPipelines(settings, paths, cores) if task["pillow"] else TensorFlowPipelines(settings, paths)

    def turn(name):
        load = harness.OthersLoad()
        seconds, core_seconds, elsewhere = pipelines.run(name)
        return {"seconds": seconds, "core_seconds": core_seconds, "others_cores": load.cores(elsewhere)}

    return {"cores": cores}, turn


if __name__ == "__main__":
    harness.serve(_start)
