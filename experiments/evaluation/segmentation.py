"""Predictions of a segmentation model for whole images, and their metrics: IoU and pixel accuracy."""

import numpy as np
import tensorflow as tf

from experiments.data.segmentation_pipeline import evaluation_pairs
from experiments.evaluation.classification import confusion


class PixelClasses:
    """Finds the class of each pixel of images of any size.

    An image that is higher or wider than `window` is cut into overlapping windows of equal size; the class of a pixel
    is taken from the window whose border is farther away. So memory does not grow with the image, except for its
    classes.

    Args:
        model: a `Segmenter`.
        window: largest height and width that the model processes at a time.
        overlap: least fraction of a window that the next one overlaps, in [0, 1).
        most_pixels: number of pixels that the model processes at a time, but at least one window.
    """

    def __init__(self, model, window=1024, overlap=0.25, most_pixels=1):
        self._window, self._overlap, self._most_pixels = window, overlap, most_pixels
        self._model, self._functions, self._usual = model, {}, None

    def _answer(self, images):
        """Returns the classes of images `(B, H, W, channels)`, one graph for the first shape and one for others."""
        self._usual = self._usual or images.shape
        shape = images.shape if images.shape == self._usual else (None, None, None, images.shape[-1])
        if shape not in self._functions:

            @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)], autograph=False)
            def answer(images):
                return tf.argmax(self._model(images, training=False), axis=-1, output_type=tf.int32)

            self._functions[shape] = answer
        return self._functions[shape](images).numpy()

    def of_image(self, image):
        """Returns the class of each pixel of an image, `(H, W, channels)` normalized: `(H, W)` int32."""
        return next(self.of_images([image]))

    def of_images(self, images):
        """Yields the classes of images, in their order; consecutive images of one size are processed together."""
        waiting = []
        for image in images:
            if waiting and (image.shape != waiting[0].shape or len(waiting) == self._at_once(image.shape)):
                yield from self._of_size(waiting)
                waiting = []
            waiting.append(image)
        if waiting:
            yield from self._of_size(waiting)

    def _at_once(self, shape):
        height, width = (min(side, self._window) for side in shape[:2])
        return max(1, self._most_pixels // (height * width))

    def _of_size(self, images):
        height, width = images[0].shape[:2]
        if max(height, width) <= self._window:
            yield from self._answer(tf.stack(images))
            return
        places = [
            (top, left, rows, columns)
            for top, rows in _windows(height, self._window, self._overlap)
            for left, columns in _windows(width, self._window, self._overlap)
        ]
        size, at_once = min(height, self._window), self._at_once(images[0].shape)
        for image in images:
            classes = np.zeros((height, width), np.int32)
            for i in range(0, len(places), at_once):
                part = places[i : i + at_once]
                windows = [image[top : top + size, left : left + min(width, self._window)] for top, left, *_ in part]
                for (top, left, rows, columns), found in zip(part, self._answer(tf.stack(windows))):
                    kept = found[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]
                    classes[slice(*rows), slice(*columns)] = kept
            yield classes


def pixel_classes(model, config):
    """Returns the `PixelClasses` of a model, by a `Config`."""
    height, width = config.data.size
    most = config.evaluation_batch() * height * width
    return PixelClasses(model, config.segmentation.window, config.segmentation.window_overlap, most)


def _windows(side, window, overlap):
    """Returns `[(start, (first, end)), ...]`: the windows along a side, and the positions that each of them decides."""
    if side <= window:
        return [(0, (0, side))]
    step = max(1, int(window * (1 - overlap)))
    count = -(-(side - window) // step) + 1
    starts = [round(i * (side - window) / (count - 1)) for i in range(count)]
    borders = [0, *((one + window + other) // 2 for one, other in zip(starts, starts[1:])), side]
    return list(zip(starts, zip(borders, borders[1:])))


class Confusions:
    """The confusion matrix of a model over all pixels that count, in all readable images of a split.

    Each pixel counts once, whatever the size of the batches and the number of devices: one of them does the work.
    Images that cannot be read, or whose masks cannot, are left out and counted. Calling the object evaluates the
    current weights of the model.

    Args:
        pixel_classes: the `PixelClasses`.
        split: the examples.
        masks: the `Masks` of the source.
        preprocessing: a `PairPreprocessing`.
    """

    def __init__(self, pixel_classes, split, masks, preprocessing):
        self._pixel_classes = pixel_classes
        self._num_classes = len(masks.table.names)
        self._num_examples = split.num_examples
        self._pairs = evaluation_pairs(split, masks, preprocessing)

    def __call__(self):
        """Returns the matrix, `(num_classes, num_classes)` int64, and the number of images that are left out.

        The matrix has the number of pixels of a class (row) that are predicted as a class (column).
        """
        matrix, truths, unreadable = np.zeros((self._num_classes,) * 2, np.int64), [], self._num_examples

        def images():
            for _, image, mask in self._pairs:
                truths.append(mask.numpy())
                yield image

        for predicted in self._pixel_classes.of_images(images()):
            matrix += confusion(truths.pop(0), predicted, self._num_classes)
            unreadable -= 1
        return matrix, unreadable


def class_ious(matrix):
    """Returns the IoU of each class, in [0, 1]; NaN for a class that occurs in neither masks nor predictions."""
    both, union = np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix)
    return np.where(union > 0, both / np.maximum(union, 1), np.nan)


def segmentation_metrics(matrix, unreadable=0):
    """Returns the metrics of what `Confusions` returns; the first one selects the best model.

    `mean_iou` is the mean over the classes that occur in masks or predictions; `pixel_accuracy` is the share of
    correctly classified pixels; both are in percent, and 0 without pixels. `unreadable` is there only if it is not 0.
    """
    left_out = {"unreadable": unreadable} if unreadable else {}
    if not matrix.sum():
        return {"mean_iou": 0.0, "pixel_accuracy": 0.0, **left_out}
    mean_iou, accuracy = np.nanmean(class_ious(matrix)), np.diag(matrix).sum() / matrix.sum()
    return {"mean_iou": 100.0 * float(mean_iou), "pixel_accuracy": 100.0 * float(accuracy), **left_out}


def notes_on_confusions(split, num_examples, matrix, unreadable):
    """Yields lines for the user about what the metrics of a split of `num_examples` images leave out."""
    if unreadable:
        yield f"{split}: {unreadable:,} of {num_examples:,} images or their masks cannot be read, and are left out"
    if not matrix.sum():
        yield f"{split}: there is no pixel that counts, so the figures are 0 and mean nothing"
