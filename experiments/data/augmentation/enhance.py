"""Changes of light, colour and sharpness, with the arithmetic of Pillow's `ImageEnhance`.

Images are `(H, W, channels)` uint8, and so are the results. A factor is a scalar from 0 on; 1 changes nothing.
"""

import tensorflow as tf

# Red, green and blue in a grey value, in parts of 65536 (ITU-R 601-2).
LUMA = (19595.0, 38470.0, 7471.0)


def brightness(image, factor):
    """Between black (0) and twice as bright (2)."""
    return _blend(0.0, image, factor)


def contrast(image, factor):
    """Between the mean grey value (0) and twice the contrast (2)."""
    values = tf.cast(grey(image), tf.float64)
    return _blend(tf.cast(tf.floor(tf.reduce_mean(values) + 0.5), tf.float32), image, factor)


def saturation(image, factor):
    """Between grey (0) and twice the colour (2). A grey image stays as it is."""
    return image if image.shape[-1] == 1 else _blend(grey(image), image, factor)


def sharpness(image, factor):
    """Between smoothed (0) and sharpened (2). The pixels at the border stay as they are."""
    pixels = tf.cast(image, tf.float32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    neighbourhoods = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    centres = pixels[1:-1, 1:-1]
    smooth = tf.floor((neighbourhoods + 4.0 * centres) / 13.0 + 0.5)
    border = [[1, 1], [1, 1], [0, 0]]
    is_inside = tf.pad(tf.ones_like(smooth, tf.bool), border)
    return _blend(tf.where(is_inside, tf.pad(smooth, border), pixels), image, factor)


def hue(image, shift):
    """Turns the hue by `shift`, a share of the whole circle in [-0.5, 0.5]. A grey image stays as it is."""
    return image if image.shape[-1] == 1 else tf.image.adjust_hue(image, shift)


def grey(image):
    """Returns the whole grey values, `(H, W, 1)` float32."""
    if image.shape[-1] == 1:
        return tf.cast(image, tf.float32)
    # Exact: every sum is a whole number below 2**24.
    weighted = tf.reduce_sum(tf.cast(image, tf.float32) * tf.constant(LUMA), axis=-1, keepdims=True)
    return tf.floor((weighted + 32768.0) / 65536.0)


def _blend(start, image, factor):
    """Goes from `start` to the image for a factor of 1, and on in that direction for a larger one."""
    blended = start + tf.cast(factor, tf.float32) * (tf.cast(image, tf.float32) - start)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.uint8)
