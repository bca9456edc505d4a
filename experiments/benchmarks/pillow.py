"""The candidates of the input benchmark that load images with Pillow, in a process for each core."""

import math
import multiprocessing
import os
import pathlib
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from experiments.config import DataConfig, require

if TYPE_CHECKING:
    from experiments.benchmarks.input import InputSettings

PILLOW = {"pillow": False, "pillow_normalize": True}  # the candidates, and whether they normalize
SEED = 0  # of files, order and augmentation
CROP_SCALE = (0.2, 1.0)  # of the windows in training


class PillowPipelines:
    """The candidates of `PILLOW`: the images of a turn are shared out among processes, one for each core.

    Images are not sent between processes but discarded where they are made, which favours Pillow.

    Args:
        settings: `InputSettings`.
        paths: of the files.
        cores: number of processes.
    """

    def __init__(self, settings: "InputSettings", paths: Sequence[str], cores: int) -> None:
        self._settings, self._paths, self._cores, self._turns = settings, paths, cores, 0
        self._pool = multiprocessing.get_context("spawn").Pool(cores)
        for name in PILLOW:
            self.run(name)  # so that every process has imported what it needs

    def run(self, name: str) -> tuple[float, float, float]:
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


def _load_all(task: tuple[Sequence[str], tuple[int, int], tuple | None, tuple]) -> float:
    """Loads images and returns the seconds that this process has worked for them."""
    paths, size, normalization, seed = task
    generator, started = random.Random(str(seed)), time.process_time()
    for path in paths:
        load_with_pillow(path, size, normalization, generator)
    return time.process_time() - started


def load_with_pillow(
    path: str | os.PathLike[str], size: tuple[int, int], normalization: tuple | None, generator: random.Random
) -> np.ndarray:
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


def images_of_folder(folder: str) -> list[pathlib.Path]:
    """Returns the images in a folder and the folders in it.

    Raises:
        UserError: if there are none.
    """
    from experiments.data.decoding import is_image_name

    paths = sorted(path for path in pathlib.Path(folder).rglob("*") if is_image_name(path.name))
    require(paths, f"{folder} has no images for Pillow.")
    return paths
