"""The moving average of the weights beside NumPy, on one device and on two."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments.config import Config
from experiments.training.distributed.strategy import make_strategy
from experiments.training.ema import AveragedWeights
from experiments.training.step import make_training_step
from tests.experiments.training.optimizers import SGD

DECAY, STEPS = 0.8, 5
INPUTS = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
TARGETS = np.random.default_rng(1).normal(size=8).astype("float32")


class Trained:
    """A linear model that has taken steps, with its weights before and after each of them."""

    def __init__(self, replicas=1, parts=1, clip_norm=0.0, dtype="float32"):
        self.strategy = make_strategy(Config(logical_cpus=replicas))
        assert self.strategy.num_replicas_in_sync == replicas
        with self.strategy.scope():
            self.model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="dense", dtype=dtype)])
            optimizer = SGD(0.3)
            optimizer.build(self.model.trainable_variables)
            self.averages = AveragedWeights(self.model.trainable_variables, DECAY)
        self.model.set_weights([np.array([[0.5], [-1.0], [2.0]]), np.array([0.25])])
        self.averages.begin()

        def example_losses(batch):
            return tf.square(tf.cast(self.model(batch["inputs"])[:, 0], tf.float32) - batch["targets"])

        arguments = (self.strategy, self.model, optimizer, example_losses, parts, clip_norm)
        step = make_training_step(*arguments, averages=self.averages)
        batch = {"inputs": INPUTS, "targets": TARGETS, "weights": np.ones(8, "float32")}
        data = tf.data.Dataset.from_tensor_slices(batch).batch(8, drop_remainder=True).repeat(STEPS)
        self.course = [self.model.get_weights()]
        for distributed in self.strategy.experimental_distribute_dataset(data):
            step(distributed)
            self.course.append(self.model.get_weights())


def numpy_average(course):
    average = [np.asarray(value, "float64") for value in course[0]]
    for values in course[1:]:
        average = [DECAY * one + (1 - DECAY) * other for one, other in zip(average, values)]
    return average


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"parts": 4, "clip_norm": 0.5},
        {"replicas": 2},
        {"replicas": 2, "parts": 2, "clip_norm": 0.5},
        {"replicas": 2, "dtype": "mixed_bfloat16"},
    ],
    ids=str,
)
def test_the_average_is_that_of_numpy_over_several_steps_on_every_device(arguments):
    trained = Trained(**arguments)
    expected = numpy_average(trained.course)
    for average, value, last in zip(trained.averages.averages, expected, trained.course[-1]):
        copies = trained.strategy.experimental_local_results(average)
        assert len(copies) == arguments.get("replicas", 1)
        for copy in copies:
            np.testing.assert_allclose(copy.numpy(), value, rtol=1e-5, atol=1e-6)
        assert np.abs(value - last).max() > 1e-3


@pytest.mark.parametrize("replicas", [1, 2])
def test_the_averages_are_in_place_for_a_while(replicas):
    trained = Trained(replicas)
    before = trained.model.get_weights()
    with pytest.raises(ZeroDivisionError), trained.averages.in_place():
        for held, expected in zip(trained.model.get_weights(), numpy_average(trained.course)):
            np.testing.assert_allclose(held, expected, rtol=1e-5, atol=1e-6)
        raise ZeroDivisionError
    for held, expected in zip(trained.model.get_weights(), before):
        np.testing.assert_array_equal(held, expected)
    for variable in trained.model.trainable_variables:
        copies = [copy.numpy() for copy in trained.strategy.experimental_local_results(variable.value)]
        assert len(copies) == replicas
        np.testing.assert_array_equal(copies[0], copies[-1])
