"""Colour jitter: random changes of brightness, contrast, saturation and hue, in random order, as in torchvision."""

import tensorflow as tf

from experiments.data.augmentation import enhance

CHANGES = (enhance.brightness, enhance.contrast, enhance.saturation, enhance.hue)


@tf.autograph.experimental.do_not_convert  # nothing to convert in its many branches, and time to find that out
def color_jitter(image, strengths, seed):
    """Changes an image's light and colours.

    Args:
        image: `(H, W, channels)` uint8 of static shape. Of a grey image saturation and hue stay as they are.
        strengths: of brightness, contrast, saturation and hue, four numbers. For the first three the factor is drawn
            from `[max(0, 1 - strength), 1 + strength]`, where 1 changes nothing; the hue is turned by up to `strength`
            of the whole circle either way. 0 leaves out.
        seed: stateless seed.

    Returns:
        An image of the same kind.
    """
    draws = tf.unstack(tf.random.stateless_uniform([len(CHANGES)], tf.random.fold_in(seed, 0)))
    used = [i for i, strength in enumerate(strengths) if strength]
    amounts = [_between(*_bounds(change, strength), draw) for change, strength, draw in zip(CHANGES, strengths, draws)]
    order = tf.argsort(tf.random.stateless_uniform([len(used)], tf.random.fold_in(seed, 1)))
    for k in range(len(used)):
        branches = [lambda i=i, image=image: CHANGES[i](image, amounts[i]) for i in used]
        image = tf.switch_case(order[k], branches)
    return image


def _bounds(change, strength):
    return (-strength, strength) if change is enhance.hue else (max(0.0, 1.0 - strength), 1.0 + strength)


def _between(low, high, draw):
    return low + draw * (high - low)
