"""RandAugment (https://arxiv.org/abs/1909.13719) in the "increasing" form of timm, as in `rand-m9-mstd0.5-inc1`.

Operations and their strengths are those of timm; the arithmetic on pixels is Pillow's. Rotation, shear and translation
interpolate bilinearly, one of timm's options.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from experiments.data.augmentation import affine, colors, draws

OPERATIONS_PER_IMAGE = 2
PROBABILITY = 0.5
LARGEST_MAGNITUDE = 10.0


def randaugment(
    images: tf.Tensor, magnitude: float, noise: float, mean: Sequence[float], seeds: tf.Tensor
) -> tf.Tensor:
    """Applies two random operations to each image, one after the other, each with probability one half.

    Args:
        images: `(B, H, W, channels)` uint8 of static height, width and channels.
        magnitude: mean strength of the operations, in [0, 10].
        noise: standard deviation of the strength, which is clipped to [0, 10].
        mean: mean of each channel of the data, in [0, 1], which fills pixels from outside the image.
        seeds: `(B, 2)` int64.

    Returns:
        Images of the same kind.
    """
    choices = list(operations(tf.constant([round(255 * value) for value in mean], tf.uint8)).values())
    for own_seeds in draws.streams(seeds, OPERATIONS_PER_IMAGE):
        choice_seeds, noise_seeds = draws.streams(own_seeds, 2)
        which, whether, coin = tf.unstack(draws.uniform(choice_seeds, (3,), tf.float64), axis=1)
        drawn = magnitude + noise * draws.normal(noise_seeds, 1, tf.float64)[:, 0]
        strength = tf.clip_by_value(drawn, 0.0, LARGEST_MAGNITUDE) / LARGEST_MAGNITUDE
        chosen = tf.where(whether < PROBABILITY, tf.cast(which * len(choices), tf.int32), len(choices))
        images = draws.apply_chosen(choices, chosen, images, strength, tf.sign(coin - 0.5))
    return images


def operations(fill: tf.Tensor) -> dict[str, Callable[..., tf.Tensor]]:
    """Returns the operations by timm's names.

    Args:
        fill: `(channels,)` uint8.

    Returns:
        Functions of images, of their strengths, `(B,)` float64 in [0, 1], the magnitudes divided by 10, and of their
        signs, `(B,)` float64, -1 or 1: the direction of those operations that have one.
    """
    factor = lambda strength, sign: tf.maximum(1.0 + sign * strength * 0.9, 0.1)  # noqa: E731  (1 changes nothing)
    whole = lambda value: tf.cast(value, tf.int32)  # noqa: E731  (cuts off)
    return {
        "AutoContrast": lambda images, *_: colors.autocontrast(images),
        "Equalize": lambda images, *_: colors.equalize(images),
        "Invert": lambda images, *_: colors.invert(images),
        "Rotate": lambda images, strength, sign: affine.rotate(images, sign * strength * 30.0, fill),
        "PosterizeIncreasing": lambda images, strength, _: colors.posterize(images, 4 - whole(strength * 4.0)),
        "SolarizeIncreasing": lambda images, strength, _: colors.solarize(images, 256 - whole(strength * 256.0)),
        "SolarizeAdd": lambda images, strength, _: colors.solarize_add(images, whole(strength * 110.0)),
        "ColorIncreasing": lambda images, *signed: colors.saturation(images, factor(*signed)),
        "ContrastIncreasing": lambda images, *signed: colors.contrast(images, factor(*signed)),
        "BrightnessIncreasing": lambda images, *signed: colors.brightness(images, factor(*signed)),
        "SharpnessIncreasing": lambda images, *signed: colors.sharpness(images, factor(*signed)),
        "ShearX": lambda images, strength, sign: affine.shear_x(images, sign * strength * 0.3, fill),
        "ShearY": lambda images, strength, sign: affine.shear_y(images, sign * strength * 0.3, fill),
        "TranslateXRel": lambda images, strength, sign: affine.translate_x(images, sign * strength * 0.45, fill),
        "TranslateYRel": lambda images, strength, sign: affine.translate_y(images, sign * strength * 0.45, fill),
    }
