"""Predicts segmentation masks: from a folder of images to a folder of masks and overlays."""

import collections
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from experiments.data.pipeline import finish_batches, parallel_map
from experiments.data.segmentation_masks import CLASSES, ClassTable
from experiments.data.segmentation_pipeline import PairPreprocessing
from experiments.data.sources.folder import IMAGES, has_masks, readable_files, split_of_files
from experiments.errors import UserError
from experiments.evaluation.mask_colors import class_colors, overlaid
from experiments.evaluation.segmentation import pixel_classes
from experiments.finished_run import find_segmenter, read_segmenter
from experiments.io import appearing, local_folder, new_output
from experiments.types import Log

SHOWN = 5  # skipped files that are named on the screen


def run(
    model: str | os.PathLike[str], data: str, output: str | os.PathLike[str], overlays: bool = True, log: Log = print
) -> int:
    """Writes the mask that a segmentation model predicts for each image of a folder.

    `masks/` has a PNG file for each image, with the numbers of the training masks, and a colour palette if the numbers
    fit in 8 bits; `overlays/` has JPEG files of the images overlaid with these colours; `classes.txt` names the classes
    of the numbers. Images are processed at their own size.

    Args:
        model: workdir of a segmentation run, or one of its files.
        data: path of a folder of images at any depth, or `folder:PATH`; if it has `images` and `masks`, `images` is
            used.
        output: path of the new folder.
        overlays: whether overlays are written.
        log: function that takes a line for the user.

    Returns:
        Number of images.

    Raises:
        UserError: if model, images or output cannot be used.
    """
    path = find_segmenter(model)
    if path is None:
        raise UserError(
            f"--model={model} has no model of a segmentation run: name the workdir of one that is complete, or a "
            "segmenter*.keras in it."
        )
    output = new_output(output)
    root = local_folder(data.removeprefix("folder:"))
    root = root / IMAGES if has_masks(root) else root
    segmenter, config, table = read_segmenter(path)
    preprocessing = PairPreprocessing.of(config)
    files, skipped, _ = readable_files(root, preprocessing.images.reading)
    log(f"{path} on {len(files):,} images of {root}")

    names = _names(files)
    waiting: collections.deque[tuple[int, np.ndarray]] = collections.deque()
    done: set[int] = set()

    def images() -> Iterator[tf.Tensor]:
        for position, values in _values(root, files, preprocessing):
            waiting.append((int(position), values.numpy()[..., config.data.shown]))
            yield preprocessing.normalize(values)

    masks = pixel_classes(segmenter, config).of_batches([images()])
    with appearing(output) as temporary:
        for mask in tqdm(masks, "predict", len(files), leave=False, disable=None):
            position, values = waiting.popleft()
            done.add(position)
            _save(mask_picture(mask, table), temporary / "masks" / f"{names[position]}.png")
            if overlays:
                picture = Image.fromarray(overlaid(np.nan_to_num(values), mask))
                _save(picture, temporary / "overlays" / f"{names[position]}.jpg", quality=90)
        if not done:
            raise UserError(f"{root} has no image that can be decoded.")
        (temporary / CLASSES).write_text(table.to_text(), encoding="utf-8")
    skipped += [(file, "it cannot be decoded") for i, file in enumerate(files) if i not in done]
    log(f"{output}: masks of {len(done):,} images")
    if skipped:
        named = "; ".join(f"{file}: {problem}" for file, problem in skipped[:SHOWN])
        log(f"skipped {len(skipped):,} files: {named}{'; ...' if len(skipped) > SHOWN else ''}")
    return len(done)


def mask_picture(mask: np.ndarray, table: ClassTable) -> Image.Image:
    """Returns a mask of classes, `(H, W)`, as a Pillow image of the numbers that a `ClassTable` gives them."""
    numbers = np.array(table.numbers)[mask]
    if max(table.numbers) > 255:
        return Image.fromarray(numbers.astype(np.uint16))
    palette = np.zeros((256, 3), np.uint8)
    palette[list(table.numbers)] = class_colors(len(table.numbers))
    picture = Image.fromarray(numbers.astype(np.uint8))
    picture.putpalette(palette.tobytes())  # does not change the numbers
    return picture


def _values(root: pathlib.Path, files: Sequence[str], preprocessing: PairPreprocessing) -> tf.data.Dataset:
    """Returns a data set of `(position, (H, W, channels) in [0, 255])` of the files that can be read."""
    split = split_of_files(root, files, np.zeros(len(files), np.int64))

    def load(position: tf.Tensor, example: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        return position, preprocessing.images.decode(split.read(example[0]))

    return finish_batches(parallel_map(split.in_order().enumerate(), load).ignore_errors())


def _names(files: Sequence[str]) -> list[str]:
    """Returns the names of the masks of files: without their suffix, unless two would then be the same."""
    bare = [str(pathlib.PurePath(file).with_suffix("")) for file in files]
    counts = collections.Counter((*bare, *files))
    return [name if counts[name] == 1 else file for name, file in zip(bare, files)]


def _save(picture: Image.Image, path: pathlib.Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
