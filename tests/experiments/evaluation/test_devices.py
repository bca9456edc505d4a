"""Evaluation on several devices and workers: bit for bit the figures of one device, each image counted once."""

import threading
import types

import numpy as np
import pytest

from experiments.config import Config
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources.digits import open_digits
from experiments.evaluation.classification import Predictions
from experiments.evaluation.devices import Devices
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.reconstruction import ReconstructionLoss
from experiments.models import make_classifier, make_fcmae
from experiments.training.distributed.strategy import make_strategy
from tests.experiments.tiny import tiny_config

CONFIG = tiny_config()
SPLIT = open_digits().split("train").cached("none").take(np.arange(23))
BATCH = 5  # five batches, of which the last has three images: two devices leave one without
PREPROCESSING = Preprocessing.of(CONFIG.data)


class Exchange:
    """What workers, each a thread, sum up."""

    def __init__(self, count):
        self.count = count
        self._arrays = [None] * count
        self._barrier = threading.Barrier(count, timeout=120)

    def worker(self, index):
        def summed(array):
            self._arrays[index] = array
            self._barrier.wait()
            total = np.sum(self._arrays, axis=0, dtype=array.dtype)
            self._barrier.wait()
            return total

        return types.SimpleNamespace(count=self.count, index=index, summed=summed)


def figures(replicas, workers=None, batch_size=BATCH):
    """What the same models make of the images: loss, classes, scores of all classes, features."""
    strategy = make_strategy(Config(logical_cpus=replicas))
    with strategy.scope():
        fcmae, classifier = make_fcmae(CONFIG), make_classifier(CONFIG, 10)
    for model in (fcmae, classifier):
        rng = np.random.default_rng(0)
        model.set_weights([rng.normal(scale=0.3, size=weight.shape) for weight in model.get_weights()])
    devices = Devices(strategy, workers)
    with devices.sharing():
        loss = ReconstructionLoss(fcmae, SPLIT, PREPROCESSING, batch_size, 0, devices)()
        targets, scores = Predictions(classifier, SPLIT, PREPROCESSING, batch_size, np.eye(10, dtype=bool), devices)()
        features, _ = PooledFeatures(classifier, PREPROCESSING, batch_size, devices)(SPLIT)
    return loss, targets, scores, features


@pytest.fixture(scope="module")
def expected():
    """The figures of one device."""
    loss, targets, scores, features = found = figures(1)
    assert 0.1 < loss < 10 and np.ptp(scores, axis=0).min() > 0 and features.shape == (23, 4)
    np.testing.assert_array_equal(targets.argmax(axis=1), SPLIT.labels)
    return found


def assert_same(found, expected):
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one, other)


def test_two_devices_give_the_figures_of_one(expected):
    assert_same(figures(2), expected)


@pytest.mark.parametrize(("count", "batch_size"), [(2, BATCH), (3, 12)])  # the latter with two batches
def test_workers_together_give_each_the_figures_of_one(expected, count, batch_size):
    exchange, found = Exchange(count), {}
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: figures(1, exchange.worker(i), batch_size)}))
        for i in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(count))
    for outcome in found.values():
        assert_same(outcome, expected if batch_size == BATCH else figures(1, batch_size=batch_size))
