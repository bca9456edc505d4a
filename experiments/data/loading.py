"""From examples to batches of loaded images, where an example may turn out to be unreadable.

Each example keeps its place whatever other one is broken. TensorFlow can leave out elements of a data set that raise
errors, but nothing else: so a part of a batch is loaded as a small data set of its own, and what is missing at its end
is made up for by blanks, which the whole batch then moves to their places.
"""

import os

import tensorflow as tf

# A small data set takes time to set up, which its examples share; they are loaded one after another.
PART = 16
PARTS_AT_ONCE = min(64, max(4, os.cpu_count() or 1))


def load_batches(split, examples, load, finish, batch_size, drop_remainder=False):
    """Loads examples and puts them together in batches, in their order.

    Args:
        split: the `MemorySplit` or `StreamSplit` that the examples come from.
        examples: `tf.data.Dataset` of tuples of scalars.
        load: function of an example, which may raise errors; it returns a tuple of tensors of static shapes.
        finish: function of the result of `load`, which raises none; it returns a dictionary of tensors with `weights`,
            0 where all that it got is zeros.
        batch_size: examples of a batch.
        drop_remainder: whether a last batch of fewer examples is left out.

    Returns:
        A `tf.data.Dataset` of batches. What cannot be loaded is zeros for `finish`.
    """
    if not split.can_fail:
        finished = parallel_map(examples, lambda *example: finish(*load(*example)))
        return finished.batch(batch_size, drop_remainder)
    loaded = _load_or_blank(examples, load, batch_size)
    finished = parallel_map(loaded, lambda place, values: (place, finish(*values)))
    return finished.batch(batch_size, drop_remainder).map(_put_in_place)


def parallel_map(dataset, function):
    """Maps a function over a data set on all cores; the order stays."""
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _load_or_blank(examples, load, batch_size):
    """Returns pairs of a place in the batch and what `load` makes of the example there, part by part of the batches.

    In each part those that cannot be loaded come last, as zeros without a place, -1.
    """
    spec = examples.map(load).element_spec
    blank = (tf.constant(-1, tf.int64), tuple(tf.zeros(value.shape, value.dtype) for value in spec))

    def load_part(places, example):
        part = tf.data.Dataset.from_tensor_slices((places, example))
        loaded = part.map(lambda place, example: (place, load(*example))).ignore_errors()
        blanks = tf.data.Dataset.from_tensors(blank).repeat()
        return loaded.concatenate(blanks).take(tf.size(places, tf.int64))

    placed = examples.enumerate().map(lambda count, example: (count % batch_size, example))
    sizes = [min(PART, batch_size - start) for start in range(0, batch_size, PART)]  # a part lies in one batch
    parts = placed.batch(PART).rebatch(sizes)  # a whole batch of encoded images would take memory and time
    return parts.interleave(
        load_part,
        cycle_length=PARTS_AT_ONCE,
        block_length=PART,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _put_in_place(places, batch):
    """Moves the examples of a batch to their places, and blanks to those that are left."""

    def moved():
        found = tf.where(places >= 0)
        blank = tf.argmin(places)
        order = tf.tensor_scatter_nd_update(
            tf.fill(tf.shape(places), blank), tf.gather_nd(places, found)[:, tf.newaxis], found[:, 0]
        )
        return {name: tf.gather(values, order) for name, values in batch.items()}

    return tf.cond(tf.reduce_all(places >= 0), lambda: batch, moved)
