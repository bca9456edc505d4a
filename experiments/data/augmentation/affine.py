"""Rotation, shear and translation, with the geometry of Pillow's `Image.transform` and bilinear interpolation.

Interpolated values are cut off to whole ones, as in Pillow; where they are whole already, rounding errors make one less
of some, here and there of others.

Images are `(H, W, channels)` uint8 of static shape, and so are the results. `fill` is the value of each channel,
`(channels,)` uint8, where the result shows what lies outside the image.
"""

import math

import tensorflow as tf


def rotate(image, degrees, fill):
    """Turns an image around its centre, counter-clockwise."""
    angle = tf.cast(degrees, tf.float64) * (math.pi / 180.0)
    cos, sin = tf.cos(angle), tf.sin(angle)
    x, y = image.shape[1] / 2, image.shape[0] / 2
    return _transform(image, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y), fill)


def shear_x(image, factor, fill):
    """Moves each row to the left by `factor` of its distance from the top."""
    return _transform(image, (1.0, factor, 0.0, 0.0, 1.0, 0.0), fill)


def shear_y(image, factor, fill):
    """Moves each column up by `factor` of its distance from the left."""
    return _transform(image, (1.0, 0.0, 0.0, factor, 1.0, 0.0), fill)


def translate_x(image, share, fill):
    """Moves an image to the left by a share of its width."""
    return _transform(image, (1.0, 0.0, share * image.shape[1], 0.0, 1.0, 0.0), fill)


def translate_y(image, share, fill):
    """Moves an image up by a share of its height."""
    return _transform(image, (1.0, 0.0, 0.0, 0.0, 1.0, share * image.shape[0]), fill)


def _transform(image, matrix, fill):
    """Takes what is at `(x, y)` from `(a * x + b * y + c, d * x + e * y + f)`; the first pixel reaches from 0 to 1."""
    height, width, _ = image.shape
    a, b, c, d, e, f = matrix = [tf.cast(value, tf.float32) for value in matrix]
    # TensorFlow counts from the middle of the first pixel. What lies outside is chosen below: left to the kernel, the
    # last row of pixels would fade into the fill.
    from_middle = tf.stack([a, b, c + (a + b - 1.0) / 2.0, d, e, f + (d + e - 1.0) / 2.0, 0.0, 0.0])
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=from_middle[tf.newaxis],
        output_shape=(height, width),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )[0]
    x, y = tf.range(width, dtype=tf.float32) + 0.5, tf.range(height, dtype=tf.float32)[:, tf.newaxis] + 0.5
    source_x, source_y = a * x + b * y + c, d * x + e * y + f
    is_inside = (source_x >= 0.0) & (source_x < width) & (source_y >= 0.0) & (source_y < height)
    return tf.where(is_inside[..., tf.newaxis], moved, fill)
