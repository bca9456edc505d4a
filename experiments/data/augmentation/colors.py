"""Changes of brightness, contrast, colour, sharpness and tones, with the arithmetic of Pillow.

Images are `(B, H, W, channels)` uint8, and so are the results. As in Pillow's `ImageEnhance`, factors are `(B,)`, one
an image, from 0 on; 1 changes nothing. The changes of tones, as in `ImageOps`, take each channel by itself; their
numbers are `(B,)` int32, one per image.
"""

import tensorflow as tf

from experiments.data.augmentation.draws import per_image

# Red, green and blue in a grey value, in parts of 65536 (ITU-R 601-2).
LUMA = (19595.0, 38470.0, 7471.0)


def brightness(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Between black (0) and twice as bright (2)."""
    return _blend(0.0, images, factors)


def contrast(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Between the mean grey value (0) and twice the contrast (2)."""
    mean = tf.reduce_mean(tf.cast(grey(images), tf.float64), axis=(1, 2, 3), keepdims=True)
    return _blend(tf.cast(tf.floor(mean + 0.5), tf.float32), images, factors)


def saturation(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Between grey (0) and twice the colour (2). A grey image stays as it is."""
    return images if images.shape[-1] == 1 else _blend(grey(images), images, factors)


def sharpness(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Between smoothed (0) and sharpened (2). The pixels at the border stay as they are."""
    pixels = tf.cast(images, tf.float32)
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    neighbourhoods = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    centres = pixels[:, 1:-1, 1:-1]
    smooth = tf.floor((neighbourhoods + 4.0 * centres) / 13.0 + 0.5)
    border = [[0, 0], [1, 1], [1, 1], [0, 0]]
    is_inside = tf.pad(tf.ones_like(smooth, tf.bool), border)
    return _blend(tf.where(is_inside, tf.pad(smooth, border), pixels), images, factors)


def hue(images: tf.Tensor, shifts: tf.Tensor) -> tf.Tensor:
    """Rotates the hue by fractions of the circle in [-0.5, 0.5]. A grey image stays unchanged."""
    if images.shape[-1] == 1:
        return images
    hues, saturations, values = tf.unstack(tf.image.rgb_to_hsv(tf.cast(images, tf.float32) / 255.0), axis=-1)
    hues = tf.math.floormod(hues + tf.cast(shifts, tf.float32)[:, tf.newaxis, tf.newaxis], 1.0)
    turned = tf.image.hsv_to_rgb(tf.stack([hues, saturations, values], axis=-1))
    return tf.cast(tf.round(255.0 * turned), tf.uint8)


def grey(images: tf.Tensor) -> tf.Tensor:
    """Returns the whole grey values, `(B, H, W, 1)` float32."""
    if images.shape[-1] == 1:
        return tf.cast(images, tf.float32)
    # Exact: every sum is a whole number below 2**24.
    weighted = tf.reduce_sum(tf.cast(images, tf.float32) * tf.constant(LUMA), axis=-1, keepdims=True)
    return tf.floor((weighted + 32768.0) / 65536.0)


def _blend(start: float | tf.Tensor, images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Interpolates from `start` (factor 0) to the images (factor 1), and extrapolates for larger factors."""
    factors = per_image(tf.cast(factors, tf.float32))
    blended = start + factors * (tf.cast(images, tf.float32) - start)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.uint8)


def autocontrast(images: tf.Tensor) -> tf.Tensor:
    """Stretches each channel so that its darkest pixel becomes 0 and its brightest 255."""
    values = tf.cast(images, tf.float64)
    darkest, brightest = (
        tf.cast(reduce(images, axis=(1, 2), keepdims=True), tf.float64) for reduce in (tf.reduce_min, tf.reduce_max)
    )
    scale = 255.0 / tf.maximum(brightest - darkest, 1.0)
    # In Pillow's order and in double precision, because the results are truncated.
    stretched = tf.cast(tf.clip_by_value(values * scale + -darkest * scale, 0.0, 255.0), tf.uint8)
    return tf.where(brightest > darkest, stretched, images)


def equalize(images: tf.Tensor) -> tf.Tensor:
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


def invert(images: tf.Tensor) -> tf.Tensor:
    """Inverts all values."""
    return 255 - images


def posterize(images: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the `bits` highest bits of each value, 0 to 8."""
    return tf.bitwise.bitwise_and(images, per_image(tf.cast(256 - tf.bitwise.left_shift(1, 8 - bits), tf.uint8)))


def solarize(images: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts the values that are not below `threshold`, 0 to 256."""
    return tf.where(tf.cast(images, tf.int32) < per_image(threshold), images, 255 - images)


def solarize_add(images: tf.Tensor, addition: tf.Tensor) -> tf.Tensor:
    """Adds to the values of the dark half, below 128; from 0 to 127."""
    return tf.where(images < 128, images + per_image(tf.cast(addition, tf.uint8)), images)
