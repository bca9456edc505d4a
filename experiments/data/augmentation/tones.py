"""Changes of an image's tones, each channel by itself, with the arithmetic of Pillow's `ImageOps`.

Images are `(H, W, channels)` uint8, and so are the results.
"""

import tensorflow as tf


def autocontrast(image):
    """Stretches each channel so that its darkest pixel becomes 0 and its brightest 255."""
    return _each_channel(image, _stretched_tones)


def equalize(image):
    """Spreads the tones of each channel so that all are about as frequent."""
    return _each_channel(image, _equalized_tones)


def invert(image):
    """Exchanges dark and bright."""
    return 255 - image


def posterize(image, bits):
    """Keeps the `bits` highest bits of each value; a scalar int32 from 0 to 8."""
    return tf.bitwise.bitwise_and(image, tf.cast(256 - tf.bitwise.left_shift(1, 8 - bits), tf.uint8))


def solarize(image, threshold):
    """Inverts the values that are not below `threshold`; a scalar int32 from 0 to 256."""
    return tf.where(tf.cast(image, tf.int32) < threshold, image, 255 - image)


def solarize_add(image, addition):
    """Adds to the values of the dark half, below 128; a scalar int32 from 0 to 127."""
    return tf.where(image < 128, image + tf.cast(addition, tf.uint8), image)


def _each_channel(image, choose_tones):
    """Gives each channel other tones: `choose_tones` makes of its values, `(H, W)` int32, a table, `(256,)`."""
    channels = []
    for values in tf.unstack(tf.cast(image, tf.int32), axis=-1):
        table = tf.cast(tf.clip_by_value(choose_tones(values), 0, 255), tf.uint8)  # cut off to whole values
        channels.append(tf.gather(table, values))
    return tf.stack(channels, axis=-1)


def _stretched_tones(values):
    tones = tf.range(256, dtype=tf.float64)
    darkest, brightest = tf.cast(tf.reduce_min(values), tf.float64), tf.cast(tf.reduce_max(values), tf.float64)
    scale = 255.0 / tf.maximum(brightest - darkest, 1.0)
    # As Pillow computes it, in this order and in double precision, because the results are cut off.
    return tf.where(brightest > darkest, tones * scale + -darkest * scale, tones)


def _equalized_tones(values):
    counts = tf.math.bincount(tf.reshape(values, [-1]), minlength=256, maxlength=256)
    below_brightest = tf.size(values) - counts[tf.reduce_max(values)]
    step = below_brightest // 255
    darker = tf.cumsum(counts, exclusive=True)
    return tf.where(step > 0, (step // 2 + darker) // tf.maximum(step, 1), tf.range(256))
