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
    states = generator_states(model)
    seeds_and_counts = [np.asarray(state.numpy()).tolist() for state in states]

    @tf.function
    def separate():
        def of_replica():
            index = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)
            for state, (seed, count) in zip(states, seeds_and_counts):
                own = (seed + index * STRIDE) % 2**32
                state.assign(tf.cast(tf.stack([own, count]), state.dtype))

        strategy.run(of_replica)

    separate()
