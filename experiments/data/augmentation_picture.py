"""Draws augmented training images, for `augmentation.png` in the workdir."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from experiments.data.augmentation.mixing import Mixing
from experiments.data.pipeline import batch_seed, example_seed
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit, StreamSplit
from experiments.picture_text import plain_text

IMAGES, VERSIONS = 8, 6
CANDIDATES = 4 * IMAGES  # of which some may be unreadable
CELL = 128  # longer side in pixels of an image as it is drawn
GAP = 28  # pixels below a cell, for its caption
NAME_LENGTH = 18  # letters of a class in a caption, a third of it where there are two


def draw_augmentation(
    path: str | os.PathLike[str],
    examples: tuple[np.ndarray, ...],
    preprocessing: Preprocessing,
    mixing: Mixing,
    class_names: Sequence[str],
    seed: int,
    shown: Sequence[int] | slice = slice(None),
) -> None:
    """Draws images, one per row: as evaluation sees it, then as training does in some epochs.

    Captions show the targets, before smoothing.

    Args:
        path: of the PNG file.
        examples: what `augmented_examples` returns.
        preprocessing: the `Preprocessing` that made them.
        mixing: a `Mixing`.
        class_names: names of the classes.
        seed: integer, of the mixing.
        shown: which channels, one or three, see `DataConfig.shown`.
    """
    originals, versions, labels = examples
    hard = dataclasses.replace(mixing, label_smoothing=0.0)
    sets = np.eye(len(class_names)) if mixing.label_sets is None else mixing.label_sets
    columns, captions = [originals], [[_caption(target, class_names) for target in sets[labels]]]
    for i in range(VERSIONS):
        batch = {"images": versions[:, i], "labels": labels, "weights": np.ones(len(labels), np.float32)}
        mixed = hard(tf.nest.map_structure(tf.constant, batch), batch_seed(seed, i, 0))
        columns.append(mixed["images"].numpy())
        captions.append([_caption(target, class_names) for target in mixed["targets"].numpy()])
    pixels = np.nan_to_num(np.stack(columns)) * np.array(preprocessing.std) + np.array(preprocessing.mean)
    pixels = pixels[..., shown]
    with plain_text(class_names):
        _draw_grid(path, pixels, captions)


@tf.autograph.experimental.do_not_convert
def augmented_examples(
    split: MemorySplit | StreamSplit, preprocessing: Preprocessing, seed: int
) -> tuple[np.ndarray, ...] | None:
    """Returns a few images of a split, as evaluation sees them and as training does in some epochs.

    Args:
        split: labelled examples; those that cannot be read are left out.
        preprocessing: a `Preprocessing`.
        seed: integer.

    Returns:
        `(originals, versions, labels)`: NumPy `(N, H, W, C)`, `(N, VERSIONS, H, W, C)` and `(N,)`; or None if no
        image can be read.
    """

    def load(position: tf.Tensor, example: tuple[Any, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        content, label = example
        encoded = split.read(content)
        versions = tf.map_fn(
            lambda epoch: preprocessing.for_training(encoded, example_seed(seed, epoch, position)),
            tf.range(VERSIONS),
            fn_output_signature=tf.float32,
        )
        return preprocessing.for_evaluation(encoded), versions, label

    examples = split.some(CANDIDATES, seed).enumerate().map(load).ignore_errors().take(IMAGES)
    rows = list(examples.as_numpy_iterator())
    return tuple(np.stack(column) for column in zip(*rows)) or None


def _caption(target: np.ndarray, class_names: Sequence[str]) -> str:
    """Names the classes of a target `(num_classes,)`, with their shares where there are more."""
    target = np.asarray(target, np.float32)
    order = np.argsort(-target, kind="stable")
    present = [i for i in order if round(100 * target[i])]
    if len(present) == 1:
        return class_names[present[0]][:NAME_LENGTH]
    if not present:
        return "no class"
    return " + ".join(f"{100 * target[i]:.0f}% {class_names[i][: NAME_LENGTH // 3]}" for i in present)


def _draw_grid(path: str | os.PathLike[str], columns: np.ndarray, captions: Sequence[Sequence[str]]) -> None:
    """Draws `(columns, rows, H, W, C)`, black at 0 and white at 1, each cell with its caption below."""
    num_columns, num_rows, *sides, channels = columns.shape
    height, width = (max(1, round(side * CELL / max(sides))) for side in sides)
    method = "area" if max(sides) > CELL else "nearest"
    cells = tf.image.resize(columns.reshape(-1, *columns.shape[2:]), (height, width), method=method).numpy()
    cells = np.clip(cells, 0.0, 1.0).reshape(num_columns, num_rows, height, width, channels)
    canvas = np.ones((GAP + num_rows * (height + GAP), num_columns * (width + GAP), channels))
    corners = {
        (j, i): (GAP + i * (height + GAP), GAP // 2 + j * (width + GAP))
        for j in range(num_columns)
        for i in range(num_rows)
    }
    for place, (top, left) in corners.items():
        canvas[top : top + height, left : left + width] = cells[place]

    dpi = 100
    figure = Figure(figsize=(canvas.shape[1] / dpi, canvas.shape[0] / dpi), dpi=dpi)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.imshow(np.squeeze(canvas), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    for (j, i), (top, left) in corners.items():
        write = functools.partial(axis.text, left + width / 2, ha="center", va="center", fontsize=8)
        write(y=top + height + GAP / 2, s=captions[j][i])
        if i == 0:
            write(y=GAP / 2, s=f"training, epoch {j}" if j else "evaluation", weight="bold")
    figure.savefig(path, dpi=dpi)
