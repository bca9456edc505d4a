"""Stochastic depth and dropout draw other numbers on every replica."""

import numpy as np
import tensorflow as tf

STRIDE = 0x9E3779B9  # odd, so that all replicas have a seed of their own


def generator_states(model):
    """Returns the states of a model's generators of random numbers, `tf.Variable`s `(2,)`: seed and count."""
    return [variable.value for variable in model.variables if "seed_generator" in variable.path]


def separate_draws(strategy, model):
    """Gives the generators of every replica a seed of their own.

    All copies of a state have to be the same before: call it once, when a run has chosen what it starts from. The first
    replica keeps its seed; a checkpoint holds its state, from which those of all others follow again.

    Args:
        strategy: the `tf.distribute.Strategy` that the model was made in.
        model: the model.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    for state in generator_states(model):
        seed, count = (int(value) for value in np.asarray(state.numpy()))

        def of_replica(context, seed=seed, count=count, dtype=state.dtype):
            own = (seed + context.replica_id_in_sync_group * STRIDE) % 2**32
            return tf.bitcast(tf.constant([own, count], tf.uint32), dtype)

        values = strategy.experimental_distribute_values_from_function(of_replica)
        strategy.run(lambda value, state=state: state.assign(value), args=(values,))
