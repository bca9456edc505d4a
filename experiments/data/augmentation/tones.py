"""Changes of images' tones, each channel by itself, with the arithmetic of Pillow's `ImageOps`.

Images are `(B, H, W, channels)` uint8, and so are the results. Numbers are `(B,)` int32, one an image.
"""

import tensorflow as tf

from experiments.data.augmentation.draws import per_image


def autocontrast(images):
    """Stretches each channel so that its darkest pixel becomes 0 and its brightest 255."""
    tones = tf.cast(images, tf.float64)
    darkest, brightest = (
        tf.cast(reduce(images, axis=(1, 2), keepdims=True), tf.float64) for reduce in (tf.reduce_min, tf.reduce_max)
    )
    scale = 255.0 / tf.maximum(brightest - darkest, 1.0)
    # In Pillow's order and in double precision, because the results are truncated.
    stretched = tf.cast(tf.clip_by_value(tones * scale + -darkest * scale, 0.0, 255.0), tf.uint8)
    return tf.where(brightest > darkest, stretched, images)


def equalize(images):
    """Spreads the tones of each channel so that all are about as frequent."""
    height, width, channels = images.shape[1:]
    # No transposition: of uint8 it makes oneDNN write to stderr, and a cast before it is moved behind it.
    planes = tf.stack(tf.unstack(tf.cast(images, tf.int32), axis=-1), axis=1)
    values = tf.reshape(planes, (-1, height * width))
    counts = tf.math.bincount(values, minlength=256, maxlength=256, axis=-1)
    brightest = tf.gather(counts, tf.reduce_max(values, axis=-1, keepdims=True), batch_dims=1)
    step = (height * width - brightest) // 255
    darker = tf.cumsum(counts, axis=-1, exclusive=True)
    tones = tf.where(step > 0, (step // 2 + darker) // tf.maximum(step, 1), tf.range(256))
    tones = tf.cast(tf.clip_by_value(tones, 0, 255), tf.uint8)
    planes = tf.reshape(tf.gather(tones, values, batch_dims=1), (-1, channels, height, width))
    return tf.stack(tf.unstack(planes, axis=1), axis=-1)


def invert(images):
    """Inverts all values."""
    return 255 - images


def posterize(images, bits):
    """Keeps the `bits` highest bits of each value, 0 to 8."""
    return tf.bitwise.bitwise_and(images, per_image(tf.cast(256 - tf.bitwise.left_shift(1, 8 - bits), tf.uint8)))


def solarize(images, threshold):
    """Inverts the values that are not below `threshold`, 0 to 256."""
    return tf.where(tf.cast(images, tf.int32) < per_image(threshold), images, 255 - images)


def solarize_add(images, addition):
    """Adds to the values of the dark half, below 128; from 0 to 127."""
    return tf.where(images < 128, images + per_image(tf.cast(addition, tf.uint8)), images)
