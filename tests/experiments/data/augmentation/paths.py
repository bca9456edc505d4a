"""Augmentation as it is called: for whole batches of images in memory, and for files one by one."""

import tensorflow as tf

PATHS = ("one by one", "batch")


def over_seeds(change, seeds, path, *values):
    """What a function makes of many seeds, an array `(N, ...)`.

    Args:
        change: function of batches: of seeds `(B, 2)`, after some values, each `(B, ...)`.
        seeds: `(N, 2)` integers.
        path: one of `PATHS`.
        *values: of one image each, the same with every seed.
    """
    seeds = tf.constant(seeds, tf.int64)

    @tf.function(autograph=False)
    def changed(seeds):
        repeated = [tf.repeat(tf.constant(value)[tf.newaxis], seeds.shape[0], axis=0) for value in values]
        return change(*repeated, seeds)

    if path == "batch":
        return changed(seeds).numpy()

    @tf.function(autograph=False)  # a loop in a graph: each call from Python would take longer than the function
    def one_by_one():
        dtype = changed.get_concrete_function(seeds[:1]).outputs[0].dtype
        return tf.map_fn(lambda seed: changed(seed[tf.newaxis])[0], seeds, fn_output_signature=dtype)

    return one_by_one().numpy()
