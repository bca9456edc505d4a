"""Changes of brightness, contrast, colour and sharpness, with the arithmetic of Pillow's `ImageEnhance`.

Images are `(B, H, W, channels)` uint8, and so are the results. Factors are `(B,)`, one an image, from 0 on; 1 changes
nothing.
"""

import tensorflow as tf

from experiments.data.augmentation.draws import per_image

# Red, green and blue in a grey value, in parts of 65536 (ITU-R 601-2).
LUMA = (19595.0, 38470.0, 7471.0)


def brightness(images, factors):
    """Between black (0) and twice as bright (2)."""
    return _blend(0.0, images, factors)


def contrast(images, factors):
    """Between the mean grey value (0) and twice the contrast (2)."""
    mean = tf.reduce_mean(tf.cast(grey(images), tf.float64), axis=(1, 2, 3), keepdims=True)
    return _blend(tf.cast(tf.floor(mean + 0.5), tf.float32), images, factors)


def saturation(images, factors):
    """Between grey (0) and twice the colour (2). A grey image stays as it is."""
    return images if images.shape[-1] == 1 else _blend(grey(images), images, factors)


def sharpness(images, factors):
    """Between smoothed (0) and sharpened (2). The pixels at the border stay as they are."""
    pixels = tf.cast(images, tf.float32)
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    neighbourhoods = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    centres = pixels[:, 1:-1, 1:-1]
    smooth = tf.floor((neighbourhoods + 4.0 * centres) / 13.0 + 0.5)
    border = [[0, 0], [1, 1], [1, 1], [0, 0]]
    is_inside = tf.pad(tf.ones_like(smooth, tf.bool), border)
    return _blend(tf.where(is_inside, tf.pad(smooth, border), pixels), images, factors)


def hue(images, shifts):
    """Rotates the hue by fractions of the circle in [-0.5, 0.5]. A grey image stays unchanged."""
    if images.shape[-1] == 1:
        return images
    hues, saturations, values = tf.unstack(tf.image.rgb_to_hsv(tf.cast(images, tf.float32) / 255.0), axis=-1)
    hues = tf.math.floormod(hues + tf.cast(shifts, tf.float32)[:, tf.newaxis, tf.newaxis], 1.0)
    turned = tf.image.hsv_to_rgb(tf.stack([hues, saturations, values], axis=-1))
    return tf.cast(tf.round(255.0 * turned), tf.uint8)


def grey(images):
    """Returns the whole grey values, `(B, H, W, 1)` float32."""
    if images.shape[-1] == 1:
        return tf.cast(images, tf.float32)
    # Exact: every sum is a whole number below 2**24.
    weighted = tf.reduce_sum(tf.cast(images, tf.float32) * tf.constant(LUMA), axis=-1, keepdims=True)
    return tf.floor((weighted + 32768.0) / 65536.0)


def _blend(start, images, factors):
    """Interpolates from `start` (factor 0) to the images (factor 1), and extrapolates for larger factors."""
    factors = per_image(tf.cast(factors, tf.float32))
    blended = start + factors * (tf.cast(images, tf.float32) - start)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.uint8)
