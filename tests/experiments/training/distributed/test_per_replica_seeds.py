"""Stochastic depth and dropout draw other numbers on every replica, and go on where they were."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convnext.layers import StochasticDepth
from experiments.config import Config
from experiments.training.checkpoint import Checkpoints
from experiments.training.distributed.strategy import generator_states, make_strategy, per_replica_seeds

IMAGES = 64


class Draws:
    """A model of stochastic depth and dropout alone, over some replicas.

    Args:
        replicas: number of them.
        workdir: of its checkpoints.
    """

    def __init__(self, replicas, workdir):
        self.strategy = make_strategy(Config(logical_cpus=replicas))
        with self.strategy.scope():
            layers = [keras.Input((3,)), StochasticDepth(0.5, seed=4), keras.layers.Dropout(0.5, seed=9)]
            self.model = keras.Sequential(layers)
            optimizer = keras.optimizers.SGD()
        self.checkpoints = Checkpoints(workdir, self.model, optimizer, 2)

    def step(self):
        """Returns what each replica makes of ones, `(replicas, IMAGES, 3)`."""
        return np.stack([value.numpy() for value in self.strategy.experimental_local_results(self._run())])

    @tf.function
    def _run(self):
        return self.strategy.run(self.model, args=(tf.ones((IMAGES, 3)),), kwargs={"training": True})


def test_replicas_draw_other_numbers(tmp_path):
    one, two = (Draws(replicas, tmp_path) for replicas in (1, 2))
    for draws in (one, two):
        per_replica_seeds(draws.strategy, draws.model)
    for _ in range(3):
        (alone,), (first, second) = one.step(), two.step()
        np.testing.assert_array_equal(first, alone)
        kept = [(values != 0).any(axis=1) for values in (first, second)]  # by stochastic depth
        assert 0.2 < np.mean(kept[0] == kept[1]) < 0.8
        both = kept[0] & kept[1]
        assert 0.2 < np.mean((first[both] != 0) == (second[both] != 0)) < 0.8


def test_without_it_they_draw_the_same(tmp_path):
    first, second = Draws(2, tmp_path).step()
    np.testing.assert_array_equal(first, second)


def test_draws_go_on_from_a_checkpoint(tmp_path):
    draws = Draws(2, tmp_path)
    per_replica_seeds(draws.strategy, draws.model)
    draws.step()
    draws.checkpoints.save(1)
    expected = [draws.step() for _ in range(2)]

    again = Draws(2, tmp_path)
    assert again.checkpoints.restore()[0] == 1
    per_replica_seeds(again.strategy, again.model)
    for values in expected:
        np.testing.assert_array_equal(again.step(), values)


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_first_replica_keeps_its_state(tmp_path, replicas):
    draws = Draws(replicas, tmp_path)
    before = [state.numpy() for state in generator_states(draws.model)]
    assert len(before) == 2
    per_replica_seeds(draws.strategy, draws.model)
    for state, value in zip(generator_states(draws.model), before):
        np.testing.assert_array_equal(state.numpy(), value)
