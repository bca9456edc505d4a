"""Windows, shifts and flips: which part of an image a model sees.

All functions take batches. Every random choice takes seeds, `(B, 2)` int64, one per image, and is a function of its
image's seed, whatever the batch.
"""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from experiments.data.augmentation import draws

ASPECT_RATIOS = (3 / 4, 4 / 3)
ATTEMPTS = 10


def random_window(sizes: tf.Tensor, scale: Sequence[float], seeds: tf.Tensor, aspect: float = 1.0) -> tf.Tensor:
    """Draws windows of random area and aspect ratio (the random resized crop of Inception).

    The area is uniform and the aspect ratio log-uniform, as in torchvision; TensorFlow's own draw is uniform in the
    side and makes smaller windows. The first of ten draws that fits is used. If none fits, in a very long image, the
    window is the largest central one within the bounds of the aspect ratio, as in torchvision.

    Args:
        sizes: `(B, 2)` int32, height and width of each image.
        scale: smallest and largest area of the window, as a share of the image.
        seeds: `(B, 2)` int64.
        aspect: width over height in the middle of the aspect ratios that are drawn.

    Returns:
        `(B, 4)` int32: top, left, height, width.
    """
    # In double precision: in single precision the last few values of a batch may round differently, and change a
    # window.
    numbers = tf.cast(draws.uniform(seeds, (4, ATTEMPTS)), tf.float64)
    sides = tf.cast(sizes, tf.float64)
    area = sides[:, :1] * sides[:, 1:] * (scale[0] + (scale[1] - scale[0]) * numbers[:, 0])
    lowest, highest = (math.log(ratio * aspect) for ratio in ASPECT_RATIOS)
    drawn = tf.exp(lowest + (highest - lowest) * numbers[:, 1])
    extents = tf.round(tf.sqrt(tf.stack([area / drawn, area * drawn], axis=-1)))  # (B, ATTEMPTS, 2)
    fits = tf.reduce_all((extents > 0) & (extents <= sides[:, tf.newaxis]), axis=-1)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=-1)
    extent = tf.gather(extents, first, batch_dims=1)
    places = tf.gather(tf.transpose(numbers[:, 2:], (0, 2, 1)), first, batch_dims=1)
    corner = tf.minimum(tf.floor(places * (sides - extent + 1)), sides - extent)
    found = tf.cast(tf.concat([corner, extent], axis=-1), tf.int32)
    return tf.where(tf.reduce_any(fits, axis=-1, keepdims=True), found, _largest_window(sizes, aspect))


def centre_window(sizes: tf.Tensor, share: float, aspect: float = 1.0) -> tf.Tensor:
    """Returns the windows of the centre crop: `share` times the sides of the largest window of an aspect ratio.

    Args:
        sizes: `(B, 2)` int32, height and width of each image.
        share: in (0, 1].
        aspect: width over height of the windows.

    Returns:
        `(B, 4)` int32: top, left, height, width.
    """
    height, width = tf.unstack(tf.cast(sizes, tf.float32), axis=-1)
    largest = tf.stack([tf.minimum(height, width / aspect), tf.minimum(width, height * aspect)], axis=-1)
    extent = tf.maximum(tf.cast(tf.round(largest * share), tf.int32), 1)
    return tf.concat([(sizes - extent) // 2, extent], axis=-1)


def whole_window(sizes: tf.Tensor) -> tf.Tensor:
    """Returns the windows of the whole images; see `centre_window`."""
    return tf.concat([tf.zeros_like(sizes), sizes], axis=-1)


def resize(image: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Resizes an image to `(height, width, channels)` float32 in [0, 255], bicubic with antialiasing.

    The result equals one call of `tf.image.resize`, bit for bit. `tf.image.resize` spends most of its time on the row
    direction, where it processes one pixel at a time; in the column direction it processes whole rows of numbers. So
    both directions are resized as columns here, one after the other.

    Args:
        image: `(H, W, channels)`.
        size: height and width, in pixels.
    """
    height, width, channels = tf.unstack(tf.shape(image))
    rows = _resize_columns(tf.reshape(image, (height, width * channels)), size[0])
    columns = tf.reshape(tf.transpose(rows), (width, channels * size[0]))  # of (size[0], W * channels)
    columns = tf.reshape(_resize_columns(columns, size[1]), (size[1] * channels, size[0]))
    image = tf.reshape(tf.transpose(columns), (*size, channels))
    return tf.clip_by_value(tf.cast(image, tf.float32), 0.0, 255.0)


def with_gaps(resize: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
    """Resizes images with NaN where there is no data, from the pixels that have data.

    A pixel is NaN if less than half of its weight comes from pixels with data.

    Args:
        resize: function from images in [0, 255] to resized ones.
        images: of any shape that it takes.
    """
    images = tf.cast(images, tf.float32)
    known = tf.math.is_finite(images)
    # Values are halved, so that overshoot beside a gap is not clipped.
    share = resize(tf.where(known, 127.5, 0.0)) / 127.5
    values = 2.0 * resize(tf.where(known, images / 2.0, 0.0))
    return tf.where(share >= 0.5, tf.minimum(values / tf.maximum(share, 0.5), 255.0), float("nan"))


def _resize_columns(values: tf.Tensor, length: int) -> tf.Tensor:
    """Resizes each column of `(H, N)` to `(length, N)`."""
    columns = values[tf.newaxis, :, tf.newaxis]  # an image of one column, with N channels
    return tf.image.resize(columns, (length, 1), method="bicubic", antialias=True)[0, :, 0]


def resize_windows(images: tf.Tensor, windows: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Cuts a window out of each image of a batch, and resizes it as `resize` does.

    Args:
        images: `(B, H, W, channels)`, of static height, width and channels.
        windows: `(B, 4)` int32: top, left, height, width of each.
        size: height and width, in pixels.

    Returns:
        `(B, height, width, channels)` float32 in [0, 255].
    """
    height, width, channels = images.shape[1:]
    top, left, *extents = tf.unstack(windows, axis=-1)
    rows = tf.cast(tf.reshape(images, (-1, height, width * channels)), tf.float32)
    rows = _weigh_rows(rows, top, extents[0], size[0])
    columns = tf.transpose(tf.reshape(rows, (-1, size[0], width, channels)), (0, 2, 1, 3))
    columns = _weigh_rows(tf.reshape(columns, (-1, width, size[0] * channels)), left, extents[1], size[1])
    resized = tf.transpose(tf.reshape(columns, (-1, size[1], size[0], channels)), (0, 2, 1, 3))
    return tf.clip_by_value(resized, 0.0, 255.0)


def _weigh_rows(rows: tf.Tensor, start: tf.Tensor, extent: tf.Tensor, length: int) -> tf.Tensor:
    """Resizes `extent` rows from `start` on, `(B,)` int32, of each of `(B, H, N)`: to `(B, length, N)`."""
    # Each row of the result is a sum of a few rows, with the weights of TensorFlow's `ScaleAndTranslate`. The sums are
    # written out, because a matrix product or an optimized chain of additions may add in another order in another
    # batch.
    extent = tf.cast(extent, tf.float32)[:, tf.newaxis]
    step = 1.0 / (length / extent)
    stretch = tf.maximum(step, 1.0)  # of the filter, which reaches 2 pixels both ways otherwise
    centre = (tf.range(length, dtype=tf.float32) + 0.5) * step  # (B, length)
    first = tf.maximum(tf.math.ceil(centre - 2.0 * stretch - 0.5), 0.0)
    last = tf.minimum(tf.floor(centre + 2.0 * stretch - 0.5), extent - 1.0)
    places = [first + i for i in range(math.ceil(4.0 * max(rows.shape[1] / length, 1.0)) + 1)]
    weights = [
        tf.where(place <= last, _cubic(tf.abs((place + 0.5 - centre) * (1.0 / stretch))), 0.0) for place in places
    ]
    scale = 1.0 / tf.add_n(weights)
    places = [start[:, tf.newaxis] + tf.cast(tf.minimum(place, last), tf.int32) for place in places]
    return tf.add_n(
        [
            tf.gather(rows, place, batch_dims=1) * (weight * scale)[..., tf.newaxis]
            for place, weight in zip(places, weights)
        ]
    )


def _cubic(x: tf.Tensor) -> tf.Tensor:
    """The kernel of Keys (https://doi.org/10.1109/TASSP.1981.1163711), of distances from 0 on."""
    near = ((1.5 * x - 2.5) * x) * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return tf.where(x < 1.0, near, tf.where(x < 2.0, far, 0.0))


def random_shift(images: tf.Tensor, distance: Sequence[int], seeds: tf.Tensor) -> tf.Tensor:
    """Shifts images by up to `distance` pixels; pixels from outside are black.

    Args:
        images: `(B, H, W, channels)` of static height, width and channels.
        distance: largest shift in each direction, in pixels.
        seeds: `(B, 2)` int64.
    """
    height, width, channels = images.shape[1:]
    down, right = distance
    padded = tf.pad(images, [[0, 0], [down, down], [right, right], [0, 0]])
    moved = draws.integers(seeds, 3)[:, :2] % (2 * tf.constant(distance) + 1)
    top, left = moved[:, :1, tf.newaxis], moved[:, 1:, tf.newaxis]
    wide = width + 2 * right
    places = (top + tf.range(height)[:, tf.newaxis]) * wide + left + tf.range(width)  # (B, H, W)
    pixels = tf.reshape(padded, (-1, (height + 2 * down) * wide, channels))
    return tf.gather(pixels, places, batch_dims=1)


def random_flip(images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
    """Mirrors images left and right, each with probability one half."""
    width, channels = images.shape[2:]

    def mirror(images: tf.Tensor) -> tf.Tensor:
        rows = tf.reverse(tf.reshape(images, (-1, width, channels)), [1])  # slow in more dimensions
        return tf.reshape(rows, tf.shape(images))

    return draws.apply_chosen([mirror], tf.where(draws.uniform(seeds, ()) < 0.5, 0, 1), images)


def normalize(image: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    """Normalizes pixels in [0, 255] by the mean and standard deviation of the data, channel by channel.

    Args:
        image: `(..., W, channels)` of static width.
        mean: of each channel, in [0, 1].
        std: of each channel.

    Returns:
        float32 of the same shape.
    """
    # Over a whole row of numbers TensorFlow repeats a vector much faster than over the few channels of a pixel.
    width, channels = image.shape[-2:]
    rows = tf.reshape(tf.cast(image, tf.float32), (-1, width * channels))
    # A division by a constant is sometimes turned into a product, which rounds differently.
    scale, offset = (
        [value / deviation for value, deviation in zip(values, std)] for values in ((1 / 255,) * channels, mean)
    )
    rows = rows * tf.constant(scale * width) - tf.constant(offset * width)
    return tf.ensure_shape(tf.reshape(rows, tf.shape(image)), image.shape)


def _largest_window(sizes: tf.Tensor, aspect: float) -> tf.Tensor:
    """Returns the largest windows in the middle of images whose aspect ratio is allowed; see `random_window`."""
    lowest, highest = (ratio * aspect for ratio in ASPECT_RATIOS)
    height, width = tf.unstack(sizes, axis=-1)
    longest = lambda side, ratio: tf.cast(tf.round(tf.cast(side, tf.float32) * ratio), tf.int32)  # noqa: E731
    extents = [tf.minimum(height, longest(width, 1 / lowest)), tf.minimum(width, longest(height, highest))]
    extent = tf.stack(extents, axis=-1)
    return tf.concat([(sizes - extent) // 2, extent], axis=-1)
