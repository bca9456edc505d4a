"""Windows, shifts and flips: which part of an image a model sees.

Every random choice takes a stateless seed, `(2,)` int64, and is a function of it.
"""

import math

import tensorflow as tf

ASPECT_RATIOS = (3 / 4, 4 / 3)
ATTEMPTS = 10


def random_window(size, scale, seed, aspect=1.0):
    """Draws a window of random area and aspect ratio (the random resized crop of Inception).

    The area is uniform and the aspect ratio log-uniform, as in torchvision; TensorFlow's own draw is uniform in the
    side and makes smaller windows. Of ten draws the first that fits counts. Where none does, in a very long image, it
    is the largest window in the middle that keeps the bounds of the aspect ratio, as in torchvision.

    Args:
        size: `(2,)` int32, height and width of the image.
        scale: smallest and largest area of the window, as a share of the image.
        seed: stateless seed.
        aspect: width over height in the middle of the aspect ratios that are drawn.

    Returns:
        `(4,)` int32: top, left, height, width.
    """
    draws = tf.random.stateless_uniform((4, ATTEMPTS), seed)
    sides = tf.cast(size, tf.float32)
    area = sides[0] * sides[1] * (scale[0] + (scale[1] - scale[0]) * draws[0])
    lowest, highest = (math.log(ratio * aspect) for ratio in ASPECT_RATIOS)
    drawn = tf.exp(lowest + (highest - lowest) * draws[1])
    extents = tf.round(tf.sqrt(tf.stack([area / drawn, area * drawn], axis=-1)))
    fits = tf.reduce_all((extents > 0) & (extents <= sides), axis=-1)
    first = tf.argmax(tf.cast(fits, tf.int32))
    extent = extents[first]
    corner = tf.minimum(tf.floor(tf.gather(draws[2:], first, axis=1) * (sides - extent + 1)), sides - extent)
    found = tf.cast(tf.concat([corner, extent], axis=0), tf.int32)
    return tf.where(tf.reduce_any(fits), found, _largest_window(size, aspect))


def centre_window(size, share, aspect=1.0):
    """Returns the window of the centre crop, whose sides are `share` of those of the largest of an aspect ratio.

    Args:
        size: `(2,)` int32, height and width of the image.
        share: in (0, 1].
        aspect: width over height of the window.

    Returns:
        `(4,)` int32: top, left, height, width.
    """
    height, width = tf.unstack(tf.cast(size, tf.float32))
    largest = tf.stack([tf.minimum(height, width / aspect), tf.minimum(width, height * aspect)])
    extent = tf.maximum(tf.cast(tf.round(largest * share), tf.int32), 1)
    return tf.concat([(size - extent) // 2, extent], axis=0)


def whole_window(size):
    """Returns the window of the whole image; see `centre_window`."""
    return tf.concat([[0, 0], size], axis=0)


def resize(image, size):
    """Resizes to `(*size, channels)` float32 in [0, 255], bicubic with antialiasing.

    The result is that of one call of `tf.image.resize`, bit by bit. That works along the rows on one pixel at a time
    and takes most of its time for it; along the columns it works on whole rows of numbers. So both directions are made
    columns here, one after the other.

    Args:
        image: `(H, W, channels)`.
        size: `(height, width)` in pixels.
    """
    height, width, channels = tf.unstack(tf.shape(image))
    rows = _resize_columns(tf.reshape(image, (height, width * channels)), size[0])  # (size[0], W * channels)
    columns = tf.reshape(tf.transpose(rows), (width, channels * size[0]))
    columns = tf.reshape(_resize_columns(columns, size[1]), (size[1] * channels, size[0]))
    image = tf.reshape(tf.transpose(columns), (*size, channels))
    return tf.clip_by_value(tf.cast(image, tf.float32), 0.0, 255.0)


def with_gaps(resize, images):
    """Resizes images that have NaN where there is no data, by the values that there are.

    Where less than half of what a pixel is made of has data, it has none: NaN.

    Args:
        resize: function from images in [0, 255] to resized ones.
        images: of any shape that it takes.
    """
    images = tf.cast(images, tf.float32)
    known = tf.math.is_finite(images)
    # At half their height: what overshoots beside a gap is not cut off.
    share = resize(tf.where(known, 127.5, 0.0)) / 127.5
    values = 2.0 * resize(tf.where(known, images / 2.0, 0.0))
    return tf.where(share >= 0.5, tf.minimum(values / tf.maximum(share, 0.5), 255.0), float("nan"))


def _resize_columns(values, length):
    """Resizes each column of `(H, N)` to `(length, N)`."""
    columns = values[tf.newaxis, :, tf.newaxis]  # an image of one column, with N channels
    return tf.image.resize(columns, (length, 1), method="bicubic", antialias=True)[0, :, 0]


def random_shift(image, distances, seed):
    """Moves an image by up to `(down, right)` pixels both ways; what comes in from outside is black."""
    down, right = distances
    padded = tf.pad(image, [[down, down], [right, right], [0, 0]])
    return tf.image.stateless_random_crop(padded, image.shape, seed)


def random_flip(image, seed):
    """Mirrors left and right with probability one half."""
    return tf.image.stateless_random_flip_left_right(image, seed)


def normalize(image, mean, std):
    """Brings pixels from [0, 255] to mean 0 and standard deviation 1 of the data, channel by channel.

    Args:
        image: `(..., W, channels)` of static width.
        mean: of each channel, in [0, 1].
        std: of each channel.

    Returns:
        float32 of the same shape.
    """
    # Over a whole row of numbers TensorFlow repeats a vector much faster than over the few channels of a pixel.
    width, channels = image.shape[-2:]
    rows = tf.reshape(tf.cast(image, tf.float32), (*image.shape[:-2], width * channels))
    rows = (rows / 255.0 - tf.constant(mean * width)) / tf.constant(std * width)
    return tf.reshape(rows, image.shape)


def _largest_window(size, aspect):
    """Returns the largest window in the middle of an image whose aspect ratio is allowed; see `random_window`."""
    lowest, highest = (ratio * aspect for ratio in ASPECT_RATIOS)
    height, width = tf.unstack(size)
    longest = lambda side, ratio: tf.cast(tf.round(tf.cast(side, tf.float32) * ratio), tf.int32)  # noqa: E731
    extent = tf.stack([tf.minimum(height, longest(width, 1 / lowest)), tf.minimum(width, longest(height, highest))])
    return tf.concat([(size - extent) // 2, extent], axis=0)
