"""Random erasing (https://arxiv.org/abs/1708.04896) with noise in every pixel, as in timm's "pixel" mode."""

import math
from collections.abc import Sequence

import tensorflow as tf

from experiments.data.augmentation import draws

AREAS = (0.02, 1 / 3)
ASPECT_RATIOS = (0.3, 1 / 0.3)
ATTEMPTS = 10


def random_erasing(images: tf.Tensor, probability: float, seeds: tf.Tensor) -> tf.Tensor:
    """Replaces a random rectangle by noise of mean 0 and standard deviation 1.

    Args:
        images: `(B, H, W, channels)` float32 of static height, width and channels, normalized.
        probability: probability of erasing, for each image.
        seeds: `(B, 2)` int64.

    Returns:
        Images of the same kind.
    """
    whether_seeds, box_seeds, noise_seeds = draws.streams(seeds, 3)
    height, width, channels = images.shape[1:]
    largest = _largest_area(height, width)

    def erase(images: tf.Tensor, boxes: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        noise = tf.reshape(draws.normal(seeds, largest * channels), (-1, largest, channels))
        top, left, rows, columns = (boxes[:, i, tf.newaxis, tf.newaxis] for i in range(4))
        row, column = tf.range(height)[:, tf.newaxis] - top, tf.range(width) - left  # (B, H, 1), (B, 1, W)
        is_inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        # The box is filled row by row; pixels outside the box keep their values.
        pixels = tf.concat([noise, tf.reshape(images, (-1, height * width, channels))], axis=1)
        itself = largest + tf.reshape(tf.range(height * width), (height, width))
        return tf.gather(pixels, tf.where(is_inside, row * columns + column, itself), batch_dims=1)

    erased = draws.uniform(whether_seeds, ()) < probability
    chosen = tf.where(erased, 0, 1)
    return draws.apply_chosen([erase], chosen, images, random_box((height, width), box_seeds), noise_seeds)


def random_box(size: Sequence[int], seeds: tf.Tensor) -> tf.Tensor:
    """Draws boxes of 2% to a third of an image, with an aspect ratio between 0.3 and 1 / 0.3.

    Args:
        size: height and width of the images.
        seeds: `(B, 2)` int64.

    Returns:
        `(B, 4)` int32: top, left, height, width of the first of ten draws that is smaller than the image in both
        directions; an empty box if none is.
    """
    # In double precision, as in `views.random_window`.
    numbers = tf.cast(draws.uniform(seeds, (ATTEMPTS, 4)), tf.float64)
    area_draw, aspect_draw, top_draw, left_draw = tf.unstack(numbers, axis=-1)
    area = (AREAS[0] + area_draw * (AREAS[1] - AREAS[0])) * (size[0] * size[1])
    log_low, log_high = (math.log(ratio) for ratio in ASPECT_RATIOS)
    aspect = tf.exp(log_low + aspect_draw * (log_high - log_low))  # height / width
    height, width = (tf.cast(tf.round(tf.sqrt(side)), tf.int32) for side in (area * aspect, area / aspect))
    top, left = (
        tf.cast(draw * tf.cast(whole - side + 1, tf.float64), tf.int32)
        for draw, whole, side in ((top_draw, size[0], height), (left_draw, size[1], width))
    )
    fits = (height < size[0]) & (width < size[1])
    boxes = tf.stack([top, left, height, width], axis=-1)
    first = tf.gather(boxes, tf.argmax(fits, axis=-1), batch_dims=1)
    return tf.where(tf.reduce_any(fits, axis=-1, keepdims=True), first, 0)


def _largest_area(height: int, width: int) -> int:
    """Returns the largest number of pixels of a box, whose sides are rounded."""
    sides = (min(side, math.sqrt(AREAS[1] / ASPECT_RATIOS[0] * height * width)) for side in (height, width))
    return min(height * width, math.ceil(AREAS[1] * height * width + sum(sides) / 2 + 1))
