"""Predictions of a segmentation model for whole images, and their metrics: IoU and pixel accuracy."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from convnext.segmentation import Segmenter
from convnext.types import Shape, Tensor
from experiments.config import Config
from experiments.data.segmentation_masks import Masks
from experiments.data.segmentation_pipeline import PairPreprocessing, evaluation_pairs
from experiments.data.source import Split
from experiments.evaluation.classification import confusion
from experiments.evaluation.devices import Devices


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
        devices: the `Devices` that do the work, those of this process alone; None for one.
        usual: `(H, W, channels)` of the images whose full stacks get a graph of their own; None for the first stack.
    """

    def __init__(
        self,
        model: Segmenter,
        window: int = 1024,
        overlap: float = 0.25,
        most_pixels: int = 1,
        devices: Devices | None = None,
        usual: Shape | None = None,
    ) -> None:
        self._window, self._overlap, self._most_pixels = window, overlap, most_pixels
        self._devices = devices or Devices()
        self._usual = usual and (self._at_once(usual), *(min(side, window) for side in usual[:2]), usual[2])
        self._graphs: dict[Shape, Callable[..., Iterator[tuple]]] = {}

        def classes(images: tf.Tensor) -> tuple[tf.Tensor]:
            return (tf.argmax(model(images, training=False), axis=-1, output_type=tf.int32),)

        self._classes = classes

    def of_batches(self, batches: Iterable[Iterable[Tensor]]) -> Iterator[np.ndarray]:
        """Yields the classes `(H, W)` int32 of the images of batches, in their order.

        Args:
            batches: iterable of iterables of images `(H, W, channels)`, normalized. Those of a batch are processed
                together, but only consecutive windows of one size.
        """
        places: collections.deque[tuple] = collections.deque()
        classes: np.ndarray | None = None
        for of_stack in self._answers(self._stacks(batches, places)):
            for of_window in of_stack:
                size, (top, rows), (left, columns), is_last = places.popleft()
                classes = np.zeros(size, np.int32) if classes is None else classes
                kept = of_window[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]
                classes[slice(*rows), slice(*columns)] = kept
                if is_last:
                    yield classes
                    classes = None

    def _stacks(self, batches: Iterable[Iterable[Tensor]], places: collections.deque[tuple]) -> Iterator[tf.Tensor]:
        """Yields windows `(B, h, w, channels)`, and appends to `places` where each lies and if it ends its image."""
        for images in batches:
            waiting: list[Tensor] = []
            for image in images:
                size = image.shape[:2]
                grid = list(itertools.product(*(_windows(side, self._window, self._overlap) for side in size)))
                for i, ((top, rows), (left, columns)) in enumerate(grid, 1):
                    window = image[top : top + self._window, left : left + self._window]
                    if waiting and (window.shape != waiting[0].shape or len(waiting) == self._at_once(window.shape)):
                        yield tf.stack(waiting)
                        waiting = []
                    waiting.append(window)
                    places.append((size, (top, rows), (left, columns), i == len(grid)))
            if waiting:
                yield tf.stack(waiting)

    def _at_once(self, shape: Shape) -> int:
        height, width = (min(side, self._window) for side in shape[:2])
        return max(1, self._most_pixels // (height * width))

    def _answers(self, stacks: Iterable[tf.Tensor]) -> Iterator[np.ndarray]:
        """Yields the classes of stacks, by one graph for the usual shape and one for all others."""
        for shape, group in itertools.groupby(stacks, self._shape_of_graph):
            if shape not in self._graphs:
                self._graphs[shape] = self._devices.own_mapping(self._classes, tf.TensorSpec(shape, tf.float32))
            for (classes,) in self._graphs[shape](group):
                yield classes

    def _shape_of_graph(self, stack: tf.Tensor) -> Shape:
        self._usual = self._usual or tuple(stack.shape)
        return self._usual if tuple(stack.shape) == self._usual else (None, None, None, stack.shape[-1])


def pixel_classes(
    model: Segmenter, config: Config, devices: Devices | None = None, usual: Shape | None = None
) -> PixelClasses:
    """Returns the `PixelClasses` of a model, by a `Config`."""
    height, width = config.data.size
    window, overlap = config.segmentation.window, config.segmentation.window_overlap
    return PixelClasses(model, window, overlap, config.evaluation_batch() * height * width, devices, usual)


def _windows(side: int, window: int, overlap: float) -> list[tuple[int, tuple[int, int]]]:
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

    Each pixel counts once, whatever the size of the batches and the number of devices. Images that cannot be read, or
    whose masks cannot, are left out and counted. Calling the object evaluates the current weights of the model.

    Args:
        model: a `Segmenter`.
        config: the `Config`.
        split: the examples.
        masks: the `Masks` of the source.
        devices: the `Devices` that do the work; None for one.
    """

    def __init__(
        self,
        model: Segmenter,
        config: Config,
        split: Split,
        masks: Masks,
        devices: Devices | None = None,
    ) -> None:
        self._devices, self._batch_size = devices or Devices(), config.evaluation_batch()
        self._num_classes = len(masks.table.names)
        self._num_examples = split.num_examples
        pairs_of = functools.partial(evaluation_pairs, masks=masks, preprocessing=PairPreprocessing.of(config))
        self._pairs = pairs_of(split.take(self._devices.own_positions(split.num_examples, self._batch_size)))
        # The same on all workers, whose graphs may round in different ways.
        first = next(iter(pairs_of(split).take(1)), None)
        self._pixel_classes = pixel_classes(model, config, self._devices, first and tuple(first[1].shape))

    def __call__(self) -> tuple[np.ndarray, int]:
        """Returns the matrix, `(num_classes, num_classes)` int64, and the number of images that are left out.

        The matrix has the number of pixels of a class (row) that are predicted as a class (column).
        """
        matrix, seen = np.zeros((self._num_classes,) * 2, np.int64), 0
        truths: collections.deque[np.ndarray] = collections.deque()

        def images(pairs: Iterable[tuple]) -> Iterator[tf.Tensor]:
            for _, image, mask in pairs:
                truths.append(mask.numpy())
                yield image

        batches = itertools.groupby(self._pairs, lambda pair: int(pair[0]) // self._batch_size)
        for predicted in self._pixel_classes.of_batches(images(pairs) for _, pairs in batches):
            matrix += confusion(truths.popleft(), predicted, self._num_classes)
            seen += 1
        return self._devices.summed(matrix), self._num_examples - int(self._devices.summed(np.array(seen)))


def class_ious(matrix: np.ndarray) -> np.ndarray:
    """Returns the IoU of each class, in [0, 1]; NaN for a class that occurs in neither masks nor predictions."""
    both, union = np.diag(matrix), matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix)
    return np.where(union > 0, both / np.maximum(union, 1), np.nan)


def segmentation_metrics(matrix: np.ndarray, unreadable: int = 0) -> dict[str, float]:
    """Returns the metrics of what `Confusions` returns; the first one selects the best model.

    `mean_iou` is the mean over the classes that occur in masks or predictions; `pixel_accuracy` is the share of
    correctly classified pixels; both are in percent, and 0 without pixels. `unreadable` is there only if it is not 0.
    """
    left_out = {"unreadable": unreadable} if unreadable else {}
    if not matrix.sum():
        return {"mean_iou": 0.0, "pixel_accuracy": 0.0, **left_out}
    mean_iou, accuracy = np.nanmean(class_ious(matrix)), np.diag(matrix).sum() / matrix.sum()
    return {"mean_iou": 100.0 * float(mean_iou), "pixel_accuracy": 100.0 * float(accuracy), **left_out}


def notes_on_confusions(split: str, num_examples: int, matrix: np.ndarray, unreadable: int) -> Iterator[str]:
    """Yields lines for the user about what the metrics of a split of `num_examples` images leave out."""
    if unreadable:
        yield f"{split}: {unreadable:,} of {num_examples:,} images or their masks cannot be read, and are left out"
    if not matrix.sum():
        yield f"{split}: there is no pixel that counts, so the figures are 0 and mean nothing"
