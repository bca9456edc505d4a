"""Pictures of masks: a colour for each class, beside the image or over it."""

import colorsys

import keras
import matplotlib
import numpy as np

from experiments.io import replacing
from experiments.training.guards import best_effort

matplotlib.use("Agg")

from matplotlib import patches, pyplot

FOLDER = "segmentations"  # in the workdir of a run
OVERLAY = 0.5  # share of the colours of classes over an image
MOST_NAMED = 25  # classes in the legend


def class_colors(count):
    """Returns a colour for each of some classes, `(count, 3)` uint8; those of the first ones never change."""
    # Hues a golden section apart never meet, and neighbours differ in brightness.
    colors = [
        colorsys.hsv_to_rgb(0.55 + 0.618034 * i, (0.65, 0.9, 0.45)[i % 3], (1.0, 0.75, 0.9)[i % 3])
        for i in range(count)
    ]
    return np.round(255 * np.array(colors).reshape(-1, 3)).astype(np.uint8)


def colored(mask):
    """Returns a mask, `(H, W)` integers, as a picture `(H, W, 3)` uint8; negative classes are black."""
    colors = np.concatenate([class_colors(max(int(mask.max()) + 1, 1)), np.zeros((1, 3), np.uint8)])
    return colors[np.where(mask < 0, len(colors) - 1, mask)]


def overlaid(image, mask):
    """Returns an image, `(H, W, 3)` or `(H, W, 1)` in [0, 255], under the colours of its mask, `(H, W, 3)` uint8."""
    mixed = (1 - OVERLAY) * np.broadcast_to(image, (*mask.shape, 3)) + OVERLAY * colored(mask)
    return np.round(np.where(mask[..., np.newaxis] < 0, image, mixed)).astype(np.uint8)


@matplotlib.rc_context({"text.parse_math": False})  # names of classes are no formulas, whatever dollars they hold
def draw_masks(path, images, truths, predictions, class_names, title):
    """Draws images in rows: the image, its mask, the prediction.

    Args:
        path: of the PNG file.
        images: list of `(H, W, channels)` in [0, 1], of one or three channels.
        truths: list of masks `(H, W)`, negative where a pixel does not count, which is black.
        predictions: list of masks.
        class_names: names of the classes, in the legend.
        title: above the picture.
    """
    ratio = np.mean([image.shape[0] / image.shape[1] for image in images])
    size = (9.0 + 1.8, max(3.0 * ratio, 0.6) * len(images) + 0.6)
    figure, axes = pyplot.subplots(len(images), 3, figsize=size, squeeze=False, layout="constrained")
    for row, image, *masks in zip(axes, images, truths, predictions):
        for axis, name, panel in zip(row, ("image", "mask", "prediction"), (np.squeeze(image), *map(colored, masks))):
            axis.imshow(panel, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
            axis.set_axis_off()
            if row is axes[0]:
                axis.set_title(name, fontsize=10)
    named = list(zip(class_names, class_colors(len(class_names)) / 255.0))[:MOST_NAMED]
    handles = [patches.Patch(color=color, label=name[:20]) for name, color in named]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=110)
    finally:
        pyplot.close(figure)


class MaskPictures(keras.callbacks.Callback):
    """Draws images, masks and predictions at some steps of a run, of the same images.

    Args:
        run: the `Run`; pictures go to `segmentations/` of its workdir.
        pixel_classes: the `PixelClasses` of its model.
        examples: a `tf.data.Dataset` of a few `(position, image, mask)`, see `evaluation_pairs`.
        class_names: names of the classes.
        at_steps: steps after which a picture is drawn.
    """

    def __init__(self, run, pixel_classes, examples, class_names, at_steps):
        super().__init__()
        self._run, self._pixel_classes, self._examples = run, pixel_classes, examples
        self._class_names = class_names
        self.at_steps = set(at_steps)

    def on_train_batch_end(self, batch, logs=None):
        if batch not in self.at_steps:
            return
        _, images, truths = zip(*self._examples.as_numpy_iterator())
        predictions = list(self._pixel_classes.of_images(images))
        data, path = self._run.config.data, self._run.workdir / FOLDER / f"step_{batch:08d}.png"
        shown = [np.clip(image * np.array(data.std) + np.array(data.mean), 0, 1)[..., data.shown] for image in images]
        with best_effort(path):
            path.parent.mkdir(exist_ok=True)
            draw_masks(path, shown, truths, predictions, self._class_names, f"step {batch:,}")
            self._run.loggers.pictures(batch, {FOLDER: path})
