"""A different change for each image of a batch."""

import tensorflow as tf


def apply_chosen(functions, chosen, images, *arguments):
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


def per_image(values):
    """Returns `(B,)` as `(B, 1, 1, 1)`."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]
