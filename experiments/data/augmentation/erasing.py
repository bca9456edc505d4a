"""Random erasing (https://arxiv.org/abs/1708.04896) with noise in every pixel, as in timm's "pixel" mode."""

import math

import tensorflow as tf

AREAS = (0.02, 1 / 3)
ASPECT_RATIOS = (0.3, 1 / 0.3)
ATTEMPTS = 10


def random_erasing(image, probability, seed):
    """Replaces a random rectangle by noise of mean 0 and standard deviation 1.

    Args:
        image: `(H, W, channels)` float32 of static shape, normalized.
        probability: with which it happens.
        seed: stateless seed.

    Returns:
        An image of the same kind.
    """
    whether_seed, box_seed, noise_seed = (tf.random.fold_in(seed, draw) for draw in range(3))

    def erased():
        top, left, height, width = tf.unstack(random_box(image.shape[:2], box_seed))
        noise = tf.random.stateless_normal((height, width, image.shape[-1]), noise_seed)
        around = [[top, image.shape[0] - top - height], [left, image.shape[1] - left - width], [0, 0]]
        result = tf.where(tf.pad(tf.ones_like(noise, tf.bool), around), tf.pad(noise, around), image)
        return tf.ensure_shape(result, image.shape)

    return tf.cond(tf.random.stateless_uniform([], whether_seed) < probability, erased, lambda: image)


def random_box(size, seed):
    """Draws a box of 2% to a third of an image, with an aspect ratio between 0.3 and 1 / 0.3.

    Args:
        size: height and width of the image.
        seed: stateless seed.

    Returns:
        `(4,)` int32: top, left, height, width: the first of ten draws that is smaller than the image both ways; if
        none is, an empty box.
    """
    draws = tf.random.stateless_uniform([ATTEMPTS, 4], seed)
    area_draw, aspect_draw, top_draw, left_draw = tf.unstack(draws, axis=1)
    area = (AREAS[0] + area_draw * (AREAS[1] - AREAS[0])) * (size[0] * size[1])
    log_low, log_high = (math.log(ratio) for ratio in ASPECT_RATIOS)
    aspect = tf.exp(log_low + aspect_draw * (log_high - log_low))  # height / width
    height, width = (tf.cast(tf.round(tf.sqrt(side)), tf.int32) for side in (area * aspect, area / aspect))
    top, left = (
        tf.cast(draw * tf.cast(whole - side + 1, tf.float32), tf.int32)
        for draw, whole, side in ((top_draw, size[0], height), (left_draw, size[1], width))
    )
    fits = (height < size[0]) & (width < size[1])
    boxes = tf.stack([top, left, height, width], axis=1)
    return tf.where(tf.reduce_any(fits), boxes[tf.argmax(fits)], 0)
