"""Evaluation on several devices and workers: bit for bit the figures of one device, each image counted once."""

import concurrent.futures
import dataclasses
import threading
import types

import keras
import numpy as np
import pytest

from experiments.config import Config
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import open_source
from experiments.data.sources.digits import open_digits
from experiments.evaluation.classification import Predictions
from experiments.evaluation.devices import Devices
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.reconstruction import ReconstructionLoss
from experiments.evaluation.segmentation import Confusions
from experiments.models import make_classifier, make_fcmae, make_segmenter
from experiments.training.distributed.strategy import make_strategy
from experiments.training.distributed.workers import Workers
from tests.experiments.images import encode, write
from tests.experiments.scenes import IGNORED, scene, write_scenes
from tests.experiments.tiny import TWO_STAGES, change, tiny_config

CONFIG = tiny_config()
PIXELS = change(
    tiny_config(
        model={**TWO_STAGES, "dims": (8, 8)},
        data={"channels": 3, "mean": (0.4,) * 3, "std": (0.25,) * 3},
        finetune={"task": "segmentation"},
    ),
    "segmentation",
    **{"decoder": "fpn", "decoder_dim": 8, "window": 32},
)
# Of the test images; those of more than 32 pixels are cut into windows.
SIZES = [(40, 48)] * 5 + [(24, 30)] * 3 + [(40, 48)] * 2 + [(33, 20)]
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

        return types.SimpleNamespace(count=self.count, index=index, is_chief=index == 0, summed=summed)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """The source of images of `SIZES` with masks."""
    root = write_scenes(tmp_path_factory.mktemp("scenes"), train=1, val=1, test=0)
    for i, size in enumerate(SIZES):
        for kind, pixels in zip(("images", "masks"), scene(i, size)):
            write(root / f"{kind}/test/{i:02}.png", encode(pixels))
    data = dataclasses.replace(PIXELS.data, source=f"folder:{root}", ignore_label=(IGNORED,))
    return open_source(data, masks=True)


@pytest.fixture(scope="module")
def figures(scenes):
    """Function of devices to what the same models make of the same images."""

    def of(replicas, workers=None, batch_size=BATCH):
        strategy = make_strategy(Config(logical_cpus=replicas))
        assert strategy.num_replicas_in_sync == replicas
        with strategy.scope():
            models = make_fcmae(CONFIG), make_classifier(CONFIG, 10), make_segmenter(PIXELS, 3)
        for model in models:
            rng = np.random.default_rng(2)
            model.set_weights([rng.normal(scale=0.5 if w.ndim > 1 else 0.1, size=w.shape) for w in model.get_weights()])
        (fcmae, classifier, segmenter), devices = models, Devices(strategy, workers)
        predictions = [
            Predictions(classifier, SPLIT, PREPROCESSING, batch_size, label_sets, devices)
            for label_sets in (None, np.eye(10, dtype=bool))
        ]
        pixels = dataclasses.replace(PIXELS, evaluation_batch_size=batch_size)
        features, labels = PooledFeatures(classifier, PREPROCESSING, batch_size, devices)(SPLIT)
        return {
            "reconstruction loss": ReconstructionLoss(fcmae, SPLIT, PREPROCESSING, batch_size, 0, devices)(),
            "labels and classes": np.stack(predictions[0]()[:2]),
            "targets and scores": np.stack(predictions[1]()[:2]),
            "features": features,
            "labels": labels,
            "pixels": Confusions(segmenter, pixels, scenes.split("test"), scenes.masks, devices)()[0],
        }

    return of


@pytest.fixture(scope="module")
def expected(figures):
    """The figures of one device."""
    found = figures(1)
    assert 0.1 < found["reconstruction loss"] < 100 and found["features"].shape == (23, 4)
    np.testing.assert_array_equal(found["labels and classes"][0], SPLIT.labels)
    targets, scores = found["targets and scores"]
    np.testing.assert_array_equal(targets.argmax(axis=1), SPLIT.labels)
    assert np.ptp(scores, axis=0).min() > 0
    assert found["pixels"].sum() == sum((height - 3) * width for height, width in SIZES)  # each once, but the ignored
    assert (found["pixels"].sum(axis=0) > 100).sum() >= 2
    return found


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("replicas", [2, 4])
def test_several_devices_give_the_figures_of_one(figures, expected, replicas):
    assert_same(figures(replicas), expected)


def of_workers(count, function):
    """What a function of a worker returns for each of so many, which work at the same time."""
    exchange = Exchange(count)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, map(exchange.worker, range(count))))


@pytest.mark.parametrize(("count", "batch_size"), [(2, BATCH), (3, 12)])  # the latter with fewer batches than workers
def test_workers_together_give_each_the_figures_of_one(figures, expected, count, batch_size):
    expected = expected if batch_size == BATCH else figures(1, batch_size=batch_size)
    for found in of_workers(count, lambda worker: figures(1, worker, batch_size)):
        assert_same(found, expected)


def test_workers_take_over_the_weights_of_the_chief():
    def weights(worker):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5), keras.layers.Dense(2)])
        model.set_weights([np.full_like(value, worker.index + 1) for value in model.get_weights()])
        Workers.share_weights(worker, model)
        return [*model.layers[-1].get_weights()]

    for kernel, bias in of_workers(3, weights):
        np.testing.assert_array_equal(kernel, np.ones((3, 2)))
        np.testing.assert_array_equal(bias, np.ones(2))
