"""Rotation, shear and translation, with the geometry of Pillow's `Image.transform` and bilinear interpolation.

Interpolated values are truncated to integers, as in Pillow. Rounding errors lower some exact integers by one, but not
the same ones as in Pillow.

Images are `(B, H, W, channels)` uint8 of static height, width and channels, and so are the results. Angles, factors and
shares are `(B,)`, one per image. `fill` is the value of each channel, `(channels,)` uint8, for pixels from outside the
image.
"""

import math
from collections.abc import Sequence

import tensorflow as tf


def rotate(images: tf.Tensor, degrees: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Rotates images around their centres, counter-clockwise."""
    angle = tf.cast(degrees, tf.float64) * (math.pi / 180.0)
    cos, sin = tf.cos(angle), tf.sin(angle)
    x, y = images.shape[2] / 2, images.shape[1] / 2
    return _transform(images, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y), fill)


def shear_x(images: tf.Tensor, factor: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Moves each row to the left by `factor` of its distance from the top."""
    return _transform(images, (1.0, factor, 0.0, 0.0, 1.0, 0.0), fill)


def shear_y(images: tf.Tensor, factor: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Moves each column up by `factor` of its distance from the left."""
    return _transform(images, (1.0, 0.0, 0.0, factor, 1.0, 0.0), fill)


def translate_x(images: tf.Tensor, share: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Moves images to the left by a share of their width."""
    return _transform(images, (1.0, 0.0, share * images.shape[2], 0.0, 1.0, 0.0), fill)


def translate_y(images: tf.Tensor, share: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Moves images up by a share of their height."""
    return _transform(images, (1.0, 0.0, 0.0, 0.0, 1.0, share * images.shape[1]), fill)


def _transform(images: tf.Tensor, matrix: Sequence[float | tf.Tensor], fill: tf.Tensor) -> tf.Tensor:
    """Takes what is at `(x, y)` from `(a * x + b * y + c, d * x + e * y + f)`; the first pixel reaches from 0 to 1."""
    height, width, channels = images.shape[1:]
    numbers = tf.zeros(tf.shape(images)[0])
    a, b, c, d, e, f = (numbers + tf.cast(value, tf.float32) for value in matrix)
    # TensorFlow measures from the centre of the first pixel. Pixels outside are filled below, because TensorFlow's
    # kernel would blend the last row of pixels into the fill.
    from_middle = (a, b, c + (a + b - 1.0) / 2.0, d, e, f + (d + e - 1.0) / 2.0, numbers, numbers)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack(from_middle, axis=-1),
        output_shape=(height, width),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    # Each channel by itself: to repeat a value over a few channels takes longer than to compute it.
    a, b, c, d, e, f = (value[:, tf.newaxis, tf.newaxis] for value in (a, b, c, d, e, f))
    x = tf.repeat(tf.range(width, dtype=tf.float32) + 0.5, channels)
    y = tf.range(height, dtype=tf.float32)[:, tf.newaxis] + 0.5
    source_x, source_y = a * x + b * y + c, d * x + e * y + f  # (B, H, W * channels)
    is_inside = (source_x >= 0.0) & (source_x < width) & (source_y >= 0.0) & (source_y < height)
    moved = tf.where(is_inside, tf.reshape(moved, tf.shape(is_inside)), tf.tile(fill, [width]))
    return tf.reshape(moved, tf.shape(images))
