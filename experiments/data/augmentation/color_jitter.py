"""Colour jitter: random changes of brightness, contrast, saturation and hue, in random order, as in torchvision."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from experiments.data.augmentation import colors, draws

CHANGES = (colors.brightness, colors.contrast, colors.saturation, colors.hue)


def color_jitter(images: tf.Tensor, strengths: Sequence[float], seeds: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue of images.

    Args:
        images: `(B, H, W, channels)` uint8 of static height, width and channels. Saturation and hue of grey images stay
            unchanged.
        strengths: of brightness, contrast, saturation and hue, four numbers. For the first three the factor is drawn
            from `[max(0, 1 - strength), 1 + strength]`, where 1 changes nothing; the hue is rotated by up to `strength`
            of the whole circle either way. 0 leaves an operation out.
        seeds: `(B, 2)` int64.

    Returns:
        Images of the same kind.
    """
    amount_seeds, order_seeds = draws.streams(seeds, 2)
    numbers = tf.unstack(draws.uniform(amount_seeds, (len(CHANGES),)), axis=1)
    used = [i for i, strength in enumerate(strengths) if strength]
    amounts = [_amount(CHANGES[i], strengths[i], numbers[i]) for i in used]
    changes = [lambda images, *amounts, k=k, i=i: CHANGES[i](images, amounts[k]) for k, i in enumerate(used)]
    order = tf.argsort(draws.uniform(order_seeds, (len(used),)))
    for k in range(len(used)):
        images = draws.apply_chosen(changes, order[:, k], images, *amounts)
    return images


def _amount(change: Callable[..., tf.Tensor], strength: float, draw: tf.Tensor) -> tf.Tensor:
    low, high = (-strength, strength) if change is colors.hue else (max(0.0, 1.0 - strength), 1.0 + strength)
    return low + draw * (high - low)
