"""Makes batches of images with masks, for segmentation.

As in `experiments.data.pipeline`, the k-th example of epoch e, with its augmentation, is a function of (seed, e, k).
Geometric changes apply to an image and its mask alike: windows and flips follow from the same draws. Masks are resized
by nearest neighbour. Outside of the image, a window has the mean in the image, before its colours are changed, and
`IGNORED` in the mask.
"""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np
import tensorflow as tf

from experiments.config import Config
from experiments.data.augmentation import draws, views
from experiments.data.decoding import decode_and_crop
from experiments.data.pipeline import (
    endless_examples,
    fill_gaps,
    finish_batches,
    load_batches,
    parallel_map,
    shard_of_batch,
)
from experiments.data.preprocessing import FLIP, STREAMS, WINDOW, Preprocessing
from experiments.data.segmentation_masks import IGNORED, Masks
from experiments.data.source import Split
from experiments.types import Batch


@dataclasses.dataclass(frozen=True)
class PairPreprocessing:
    """How an image and its mask become the input of a segmentation model and its target.

    Args:
        images: what is done with the image alone, and the size of a training image.
        scale: smallest and largest factor by which training changes the size of an image, see `random_window`.
    """

    images: Preprocessing
    scale: tuple[float, ...] = (1.0, 1.0)

    @classmethod
    def of(cls, config: Config) -> Self:
        """Returns the preprocessing of a `Config`."""
        return cls(Preprocessing.of(config.data, config.finetune), config.segmentation.scale)

    def for_training(self, encoded: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """An image's bytes and its mask, `(H, W)`, to `(height, width, channels)` float32 and `(height, width)`."""
        return self.augment(*self.random_view(encoded, mask, seed), seed)

    def random_view(self, encoded: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The first half of `for_training`: a random window of both, resized; of the image values in [0, 255]."""
        size = tf.shape(mask)
        seeds = draws.streams(seed[tf.newaxis], STREAMS)[WINDOW]
        window = random_window(size, self.images.size, self.scale, seeds)
        corner, end = tf.maximum(window[:2], 0), tf.minimum(window[:2] + window[2:], size)
        inside = tf.concat([corner, end - corner], axis=0)
        before = corner - window[:2]
        margins = tf.stack([before, window[2:] - (end - corner) - before], axis=1)

        def resize(image: tf.Tensor) -> tf.Tensor:
            known = tf.pad(tf.ones(tf.shape(image)[:2], tf.bool), margins)
            image = tf.pad(tf.cast(image, tf.float32), tf.concat([margins, [[0, 0]]], axis=0))
            return self.images.resize(tf.where(known[..., tf.newaxis], image, 255.0 * tf.constant(self.images.mean)))

        image = decode_and_crop(encoded, lambda found: _checked(inside, found, size), self.images.reading, resize)
        return tf.ensure_shape(image, (*self.images.size, self.images.channels)), window_of_mask(
            mask, window, self.images.size
        )

    def augment(self, image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The second half of `for_training`: flips both, and changes and normalizes the image."""
        seeds = seed[tf.newaxis]
        if self.images.flip:
            mask = views.random_flip(mask[tf.newaxis, ..., tf.newaxis], draws.streams(seeds, STREAMS)[FLIP])[0, ..., 0]
        return self.images.augment(image[tf.newaxis], seeds)[0], mask

    def for_evaluation(self, encoded: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """An image's bytes and its mask to both at full size, the image normalized: `(H, W, channels)` and `(H, W)`."""
        size = tf.shape(mask)
        whole = lambda found: _checked(views.whole_window(found), found, size)  # noqa: E731
        return self.normalize(decode_and_crop(encoded, whole, self.images.reading)), mask

    def normalize(self, image: tf.Tensor) -> tf.Tensor:
        """Brings pixels in [0, 255] of an image of any size to mean 0 and standard deviation 1; without data, to 0."""
        image = (image / 255.0 - tf.constant(self.images.mean)) / tf.constant(self.images.std)
        return tf.where(tf.math.is_nan(image), 0.0, image)


def random_window(size: tf.Tensor, crop: Sequence[int], scale: Sequence[float], seeds: tf.Tensor) -> tf.Tensor:
    """Draws the window of an image that becomes a training image after scaling by a random factor.

    Args:
        size: `(2,)` int32, height and width of the image.
        crop: those of the training image.
        scale: smallest and largest factor, drawn log-uniformly; the window has `crop / factor` pixels.
        seeds: `(1, 2)` int64.

    Returns:
        `(4,)` int32: top, left, height, width. If it fits, the window lies inside the image; otherwise the image lies
        inside the window: then top or left is negative, or the window ends outside.
    """
    numbers = draws.uniform(seeds, (3,))[0]
    lowest, highest = (tf.math.log(tf.cast(factor, tf.float32)) for factor in scale)
    factor = tf.exp(lowest + (highest - lowest) * numbers[0])
    extent = tf.maximum(tf.cast(tf.round(tf.constant(crop, tf.float32) / factor), tf.int32), 1)
    free = size - extent
    most = tf.abs(free)
    moved = tf.minimum(tf.cast(numbers[1:] * tf.cast(most + 1, tf.float32), tf.int32), most)
    return tf.concat([tf.sign(free) * moved, extent], axis=0)


def window_of_mask(mask: tf.Tensor, window: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Returns a window of a mask, resized to `size` by nearest neighbour, `IGNORED` outside of the mask."""

    def places(axis: int) -> tf.Tensor:
        step = tf.cast(window[2 + axis], tf.float32) / size[axis]
        nearest = tf.cast(tf.floor((tf.range(size[axis], dtype=tf.float32) + 0.5) * step), tf.int32)
        return window[axis] + tf.minimum(nearest, window[2 + axis] - 1)

    rows, columns = places(0), places(1)
    height, width = tf.unstack(tf.shape(mask))
    taken = tf.gather(mask, tf.clip_by_value(rows, 0, height - 1))
    taken = tf.gather(taken, tf.clip_by_value(columns, 0, width - 1), axis=1)
    inside = ((rows >= 0) & (rows < height))[:, tf.newaxis] & (columns >= 0) & (columns < width)
    return tf.ensure_shape(tf.where(inside, taken, IGNORED), size)


def _checked(window: tf.Tensor, found: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns the window; when it runs, an image whose size is not that of its mask raises an error."""
    with tf.control_dependencies([tf.debugging.assert_equal(found, size, "image and mask have different sizes")]):
        return tf.identity(window)


@tf.autograph.experimental.do_not_convert
def training_pairs(
    split: Split,
    masks: Masks,
    preprocessing: PairPreprocessing,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    shard: int = 0,
    num_shards: int = 1,
) -> tf.data.Dataset:
    """Returns the endless stream of training batches from a given step on, or one shard of it.

    Arguments and result are those of `pipeline.training_batches`, but for `masks`, the `Masks` of the source, and
    `preprocessing`, a `PairPreprocessing`. The `labels` of a batch are `(B, H, W)` int32, the class of each pixel or
    `IGNORED`. An example whose image or mask cannot be read has weight 0.
    """
    places = shard_of_batch(batch_size, shard, num_shards)
    examples = endless_examples(split, seed, batch_size, places, start_step)

    def load(seed: tf.Tensor, content: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        content, mask = masks.read(content, label)
        return seed, *preprocessing.random_view(split.read(content), mask, seed), tf.constant(1.0)

    def finish(seed: tf.Tensor, image: tf.Tensor, mask: tf.Tensor, weight: tf.Tensor) -> Batch:
        zeros = lambda: (tf.zeros_like(image), tf.fill(tf.shape(mask), IGNORED))  # noqa: E731
        image, mask = tf.cond(weight > 0.0, lambda: preprocessing.augment(image, mask, seed), zeros)
        return {"images": image, "labels": mask, "weights": weight}

    batches = load_batches(split, examples, load, finish, len(places), drop_remainder=True)
    return finish_batches(fill_gaps(batches, preprocessing.images))


@tf.autograph.experimental.do_not_convert
def evaluation_pairs(split: Split, masks: Masks, preprocessing: PairPreprocessing) -> tf.data.Dataset:
    """Returns the examples of a split that can be read, once and in order, each of its own size.

    Returns:
        A `tf.data.Dataset` of `(position, image, mask)`: int64, `(H, W, channels)` float32, `(H, W)` int32.
    """

    def load(position: tf.Tensor, example: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        content, label = example
        content, mask = masks.read(content, label)
        return position, *preprocessing.for_evaluation(split.read(content), mask)

    examples = parallel_map(split.in_order().enumerate(), load).ignore_errors()
    return finish_batches(examples)


@tf.autograph.experimental.do_not_convert
def pixel_counts(split: Split, masks: Masks) -> np.ndarray:
    """Returns the number of pixels of each class in the masks of a split, `(num_classes,)` int64; reads all masks."""
    num_classes = len(masks.table.names)

    def count(content: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        _, mask = masks.read(content, label)
        return tf.math.bincount(tf.boolean_mask(mask, mask >= 0), minlength=num_classes, maxlength=num_classes)

    counts = parallel_map(split.in_order(), count).ignore_errors()
    return sum(counts.as_numpy_iterator(), np.zeros(num_classes, np.int64))
