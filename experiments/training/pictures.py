"""The pictures that a run draws: reconstructions, masks of a segmentation, and curves of its metrics."""

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.evaluation.mask_colors import class_colors, colored
from experiments.evaluation.segmentation import PixelClasses
from experiments.io import replacing
from experiments.picture_text import plain_text
from experiments.report.figures import draw_run
from experiments.training.guards import best_effort
from experiments.training.loggers import read_metrics
from experiments.training.workdir import PICTURES, SEGMENTATIONS
from experiments.types import Metrics, Path
from fcmae.visualize import reconstruction_panels

if TYPE_CHECKING:
    from experiments.training.run import Run

SECONDS_BETWEEN_CURVES = 60
MOST_NAMED = 25  # classes in the legend of masks


def _draw_reconstructions(path: Path, panels: Sequence[np.ndarray], title: str) -> None:
    """Draws images in rows: original, masked, reconstruction, the three `panels`, `(B, H, W, channels)` in [0, 1]."""
    count, height, width, _ = panels[0].shape
    per_row = 2 if count > 4 else 1
    rows = -(-count // per_row)
    longer = max(height, width)
    size = (3 * per_row * max(1.7 * width / longer, 1.1), (1.7 * height / longer + 0.05) * rows + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, 3 * per_row, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for i in range(count):
        for j, (name, panel) in enumerate(zip(("original", "masked", "reconstruction"), panels)):
            axis = axes[i // per_row, 3 * (i % per_row) + j]
            axis.imshow(np.squeeze(panel[i]), cmap="gray", vmin=0.0, vmax=1.0)
            if i < per_row:
                axis.set_title(name, fontsize=10)
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def draw_masks(
    path: Path,
    images: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    class_names: Sequence[str],
    title: str,
) -> None:
    """Draws images in rows: the image, its mask, the prediction.

    Args:
        path: of the PNG file.
        images: list of `(H, W, channels)` in [0, 1], of one or three channels.
        truths: list of masks `(H, W)`; pixels that do not count are negative, and drawn black.
        predictions: list of masks.
        class_names: names of the classes, in the legend.
        title: above the picture.
    """
    with plain_text(class_names) as names:
        ratio = np.mean([image.shape[0] / image.shape[1] for image in images])
        size = (9.0 + 1.8, max(3.0 * ratio, 0.6) * len(images) + 0.6)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(images), 3, squeeze=False)
        for axis, name in zip(axes[0], ("image", "mask (black: ignored)", "prediction")):
            axis.set_title(name, fontsize=10)
        for row, image, *masks in zip(axes, images, truths, predictions):
            shown = image[..., 0] if image.shape[-1] == 1 else image
            for axis, panel in zip(row, (shown, *map(colored, masks))):
                axis.imshow(panel, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
                axis.set_axis_off()
        named = list(zip(names, class_colors(len(names)) / 255.0))[:MOST_NAMED]
        handles = [Patch(color=color, label=name[:20]) for name, color in named]
        figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
        figure.suptitle(title, fontsize=11)
        _save(figure, path)


def draw_curves(workdir: Path) -> None:
    """Draws `curves.png` of a run from its `metrics.jsonl`, an axis for each metric."""
    with plain_text([workdir.name]):
        if figure := draw_run(read_metrics(workdir), workdir.name):
            _save(figure, workdir / "curves.png")


class Curves(keras.callbacks.Callback):
    """Keeps `curves.png` up to date: when metrics are logged, but at most once a minute, and at the end.

    Args:
        workdir: of the run.
    """

    def __init__(self, workdir: Path) -> None:
        super().__init__()
        self._workdir = workdir
        self._drawn_at = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Metrics | None = None) -> None:
        if logs and time.monotonic() - self._drawn_at >= SECONDS_BETWEEN_CURVES:
            self._draw()
            self._drawn_at = time.monotonic()

    def on_train_end(self, logs: Metrics | None = None) -> None:
        self._draw()

    def _draw(self) -> None:
        with best_effort(self._workdir / "curves.png"):
            draw_curves(self._workdir)


class Reconstructions(keras.callbacks.Callback):
    """Draws reconstructions of the same images with the same masks, at some steps of a run.

    Args:
        run: the `Run` of an `FCMAE`; pictures go to `reconstructions/` of its workdir.
        batch: `(images, visible, valid)`: `(B, H, W, channels)` normalized, `(B, L)`, and where there is data or None.
        at_steps: steps after which a picture is drawn.
    """

    def __init__(
        self, run: "Run", batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor | None], at_steps: Iterable[int]
    ) -> None:
        super().__init__()
        self._run, self._batch = run, batch
        self.at_steps = set(at_steps)

    def on_train_batch_end(self, batch: int, logs: Metrics | None = None) -> None:
        if batch not in self.at_steps:
            return
        path = self._run.workdir / PICTURES / f"step_{batch:08d}.png"
        panels, mask_ratio = self._panels(), self._run.model.mask_ratio
        with best_effort(path):
            path.parent.mkdir(exist_ok=True)
            _draw_reconstructions(path, panels, f"step {batch:,}: {mask_ratio:.0%} of the patches masked")
            self._run.loggers.pictures(batch, {PICTURES: path})

    def _panels(self) -> list[np.ndarray]:
        size, data, model = self._run.evaluation_batch_size, self._run.config.data, self._run.model
        assert not isinstance(data.mean, str) and not isinstance(data.std, str)
        images, visible, valid = self._batch
        parts = []
        for i in range(0, len(images), size):
            part = slice(i, i + size)
            known = None if valid is None else valid[part]
            parts.append(reconstruction_panels(model, images[part], visible[part], data.mean, data.std, known))
        return [np.concatenate(panel)[..., data.shown] for panel in zip(*parts)]


class MaskPictures(keras.callbacks.Callback):
    """Draws masks and predictions for the same images, at some steps of a run.

    Args:
        run: the `Run`; pictures go to `segmentations/` of its workdir.
        pixel_classes: the `PixelClasses` of its model.
        examples: a `tf.data.Dataset` of a few `(position, image, mask)`, see `evaluation_pairs`.
        class_names: names of the classes.
        at_steps: steps after which a picture is drawn.
    """

    def __init__(
        self,
        run: "Run",
        pixel_classes: PixelClasses,
        examples: tf.data.Dataset,
        class_names: Sequence[str],
        at_steps: Iterable[int],
    ) -> None:
        super().__init__()
        self._run, self._pixel_classes, self._examples = run, pixel_classes, examples
        self._class_names = class_names
        self.at_steps = set(at_steps)

    def on_train_batch_end(self, batch: int, logs: Metrics | None = None) -> None:
        if batch not in self.at_steps:
            return
        examples = list(self._examples.as_numpy_iterator())
        if not examples:  # their files have become unreadable
            return
        _, images, truths = zip(*examples)
        predictions = list(self._pixel_classes.of_batches([images]))
        data, path = self._run.config.data, self._run.workdir / SEGMENTATIONS / f"step_{batch:08d}.png"
        shown = [np.clip(image * np.array(data.std) + np.array(data.mean), 0, 1)[..., data.shown] for image in images]
        with best_effort(path):
            path.parent.mkdir(exist_ok=True)
            draw_masks(path, shown, truths, predictions, self._class_names, f"step {batch:,}")
            self._run.loggers.pictures(batch, {SEGMENTATIONS: path})


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
