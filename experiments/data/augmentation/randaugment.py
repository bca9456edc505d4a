"""RandAugment (https://arxiv.org/abs/1909.13719) in the "increasing" form of timm, as in `rand-m9-mstd0.5-inc1`.

Operations and their strengths are those of timm; the arithmetic on pixels is Pillow's. Rotation, shear and translation
interpolate bilinearly, which is one of the choices that timm leaves.
"""

import tensorflow as tf

from experiments.data.augmentation import affine, enhance, tones

OPERATIONS_PER_IMAGE = 2
PROBABILITY = 0.5
LARGEST_MAGNITUDE = 10.0


@tf.autograph.experimental.do_not_convert  # nothing to convert in its many branches, and a second to find that out
def randaugment(image, magnitude, noise, mean, seed):
    """Applies two random operations, one after the other, each with probability one half.

    Args:
        image: `(H, W, channels)` uint8 of static shape.
        magnitude: mean strength of the operations, in [0, 10].
        noise: standard deviation of the strength; what is drawn is brought back to [0, 10].
        mean: of each channel of the data, in [0, 1], which fills what lies outside the image.
        seed: stateless seed.

    Returns:
        An image of the same kind.
    """
    fill = tf.constant([round(255 * value) for value in mean], tf.uint8)
    for i in range(OPERATIONS_PER_IMAGE):
        choice_seed, noise_seed = (tf.random.fold_in(tf.random.fold_in(seed, i), draw) for draw in range(2))
        which, whether, coin = tf.unstack(tf.random.stateless_uniform([3], choice_seed, dtype=tf.float64))
        drawn = magnitude + noise * tf.random.stateless_normal([], noise_seed, dtype=tf.float64)
        strength = tf.clip_by_value(drawn, 0.0, LARGEST_MAGNITUDE) / LARGEST_MAGNITUDE
        choices = list(operations(strength, tf.sign(coin - 0.5), fill).values())
        chosen = tf.cast(which * len(choices), tf.int32)
        branches = [lambda apply=apply, image=image: apply(image) for apply in choices]
        branches.append(lambda image=image: image)
        image = tf.switch_case(tf.where(whether < PROBABILITY, chosen, len(choices)), branches)
    return image


def operations(strength, sign, fill):
    """Returns the operations by timm's names, functions from image to image.

    Args:
        strength: scalar float64 in [0, 1], the magnitude divided by 10.
        sign: scalar float64, -1 or 1: the direction of those operations that have one.
        fill: `(channels,)` uint8.
    """
    signed = sign * strength
    factor = tf.maximum(1.0 + signed * 0.9, 0.1)  # of enhancement; 1 changes nothing
    whole = lambda value: tf.cast(value, tf.int32)  # noqa: E731  (cuts off)
    return {
        "AutoContrast": tones.autocontrast,
        "Equalize": tones.equalize,
        "Invert": tones.invert,
        "Rotate": lambda image: affine.rotate(image, signed * 30.0, fill),
        "PosterizeIncreasing": lambda image: tones.posterize(image, 4 - whole(strength * 4.0)),
        "SolarizeIncreasing": lambda image: tones.solarize(image, 256 - whole(strength * 256.0)),
        "SolarizeAdd": lambda image: tones.solarize_add(image, whole(strength * 110.0)),
        "ColorIncreasing": lambda image: enhance.saturation(image, factor),
        "ContrastIncreasing": lambda image: enhance.contrast(image, factor),
        "BrightnessIncreasing": lambda image: enhance.brightness(image, factor),
        "SharpnessIncreasing": lambda image: enhance.sharpness(image, factor),
        "ShearX": lambda image: affine.shear_x(image, signed * 0.3, fill),
        "ShearY": lambda image: affine.shear_y(image, signed * 0.3, fill),
        "TranslateXRel": lambda image: affine.translate_x(image, signed * 0.45, fill),
        "TranslateYRel": lambda image: affine.translate_y(image, signed * 0.45, fill),
    }
