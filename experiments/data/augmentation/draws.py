"""Random numbers and choices for a batch; those of each image are a function of its own seed.

The numbers equal those of `tf.random.stateless_uniform` and similar operations. TensorFlow's operations take one seed
at a time, which for small images is slower than the augmentation itself; so for more than one image their generator,
Philox 4x32-10 (https://doi.org/10.1145/2063384.2063405), is computed with tensors, for all images at once.

Seeds are `(B, 2)` int64.
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

KEY = (0x3EC8F720, 0x02461E29)  # TensorFlow scrambles seeds with it
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = np.uint64(0xFFFFFFFF)
BITS = np.uint64(32)
ALIGNED = 64  # numbers: Eigen computes the last few of a tensor with other code, which rounds differently


def streams(seeds: tf.Tensor, count: int) -> list[tf.Tensor]:
    """Returns `count` tensors of seeds for independent draws: those of `tf.random.fold_in(seed, i)`."""
    if seeds.shape[0] == 1:
        return [tf.cast(tf.random.fold_in(seeds[0], i), tf.int64)[tf.newaxis] for i in range(count)]
    first = tf.cast(tf.bitcast(tf.cast(_words(seeds, 1)[:, 0], tf.uint32), tf.int32), tf.int64)
    return [tf.stack([first, tf.fill(tf.shape(first), tf.constant(i, tf.int64))], axis=1) for i in range(count)]


def fold_in(seed: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """Returns `(B, 2)`: a seed, `(2,)` int64, with each of some numbers, `(B,)` int64, folded in."""
    first = tf.random.fold_in(seed, tf.constant(0, tf.int64))[0]
    return tf.stack([tf.fill(tf.shape(numbers), first), numbers], axis=1)


def uniform(seeds: tf.Tensor, shape: Sequence[int], dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Returns `(B, *shape)` in [0, 1), float32 or float64."""
    if seeds.shape[0] == 1:
        return tf.random.stateless_uniform(shape, seeds[0], dtype=dtype)[tf.newaxis]
    count = math.prod(shape)
    if dtype == tf.float32:
        numbers = _unit(_words(seeds, -(-count // 4)))
    else:
        words = _words(seeds, -(-count // 2))
        mantissa = tf.bitwise.left_shift(words[:, ::2] & np.uint64(0xFFFFF), BITS) | words[:, 1::2]
        numbers = tf.cast(mantissa, tf.float64) * 2.0**-52
    return tf.reshape(numbers[:, :count], (-1, *shape))


def integers(seeds: tf.Tensor, count: int) -> tf.Tensor:
    """Returns `(B, count)` int32 from 0 to 2^31 - 2."""
    largest = tf.int32.max
    if seeds.shape[0] == 1:
        return tf.random.stateless_uniform([count], seeds[0], maxval=largest, dtype=tf.int32)[tf.newaxis]
    return tf.cast(_words(seeds, -(-count // 4))[:, :count] % np.uint64(largest), tf.int32)


def normal(seeds: tf.Tensor, count: int, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Returns `(B, count)` of mean 0 and standard deviation 1, float32 or float64; up to rounding TensorFlow's."""
    if seeds.shape[0] == 1:
        return tf.random.stateless_normal([count], seeds[0], dtype=dtype)[tf.newaxis]
    size = count if dtype == tf.float64 else -(-count // ALIGNED) * ALIGNED
    one, other = tf.unstack(uniform(seeds, (-(-size // 2), 2), dtype), axis=-1)
    radius = tf.sqrt(-2.0 * tf.math.log(tf.maximum(one, 1e-7)))
    angle = 2.0 * math.pi * other
    numbers = tf.stack([radius * tf.sin(angle), radius * tf.cos(angle)], axis=-1)
    return tf.reshape(numbers, (-1, 2 * one.shape[1]))[:, :count]


def _unit(words: tf.Tensor) -> tf.Tensor:
    """Converts 32-bit words to float32 in [0, 1), from their lower 23 bits."""
    return tf.cast(tf.cast(words & np.uint64(0x7FFFFF), tf.int32), tf.float32) * 2.0**-23


def _words(seeds: tf.Tensor, blocks: int) -> tf.Tensor:
    """Returns `(B, 4 * blocks)` 32-bit words, as uint64."""
    return tf.ensure_shape(_traced_words(blocks)(seeds), (seeds.shape[0], 4 * blocks))


@functools.cache
def _traced_words(blocks: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function of seeds to words, whose hundreds of operations are traced once for all graphs."""
    words = functools.partial(_compute_words, blocks)
    return tf.function(words, input_signature=[tf.TensorSpec((None, 2), tf.int64)], autograph=False)


def _compute_words(blocks: int, seeds: tf.Tensor) -> tf.Tensor:
    halves = tf.bitcast(seeds, tf.uint64)
    zero, one = halves[:, :1], halves[:, 1:]
    counter = (zero & WORD, tf.bitwise.right_shift(zero, BITS), one & WORD, tf.bitwise.right_shift(one, BITS))
    *key, c2, c3 = _philox(counter, [np.uint64(half) for half in KEY])
    zeros = tf.zeros_like(zero) + tf.zeros([1, blocks], tf.uint64)
    counter = (tf.cast(tf.range(blocks), tf.uint64) + zeros, zeros, c2 + zeros, c3 + zeros)
    return tf.reshape(tf.stack(_philox(counter, key), axis=-1), (-1, 4 * blocks))


def _philox(counter: Sequence[tf.Tensor], key: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
    """Ten rounds; counter and key are tuples of four and two tensors."""
    c0, c1, c2, c3 = counter
    for i in range(ROUNDS):
        k0, k1 = ((half + np.uint64(i * step & 0xFFFFFFFF)) & WORD for half, step in zip(key, KEY_STEPS))
        one, other = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1 = tf.bitwise.right_shift(other, BITS) ^ c1 ^ k0, other & WORD
        c2, c3 = tf.bitwise.right_shift(one, BITS) ^ c3 ^ k1, one & WORD
    return c0, c1, c2, c3


def apply_chosen(
    functions: Sequence[Callable[..., tf.Tensor]], chosen: tf.Tensor, images: tf.Tensor, *arguments: tf.Tensor
) -> tf.Tensor:
    """Applies to each image of a batch the function that is chosen for it.

    Args:
        functions: each maps some of the images, and their arguments, to images of the same kind.
        chosen: `(B,)` int32, the number of the function of each image; `len(functions)` leaves it as it is.
        images: `(B, ...)`.
        arguments: tensors, `(B, ...)`.
    """
    functions = [*functions, lambda images, *_: images]
    if chosen.shape[0] == 1:
        branches = [lambda function=function: function(images, *arguments) for function in functions]
        return tf.ensure_shape(tf.switch_case(chosen[0], branches), images.shape)
    parts = tf.dynamic_partition(tf.range(tf.shape(chosen)[0]), chosen, len(functions))
    changed = [
        function(*(tf.gather(values, part) for values in (images, *arguments)))
        for function, part in zip(functions, parts)
    ]
    return tf.ensure_shape(tf.dynamic_stitch(parts, changed), images.shape)


def per_image(values: tf.Tensor) -> tf.Tensor:
    """Returns `(B,)` as `(B, 1, 1, 1)`."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]
