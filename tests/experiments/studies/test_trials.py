"""The units of work, on digits, with runs of two steps."""

import dataclasses

import keras
import numpy as np
import pytest

from experiments import finetune, pretrain
from experiments.config import Config
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit
from experiments.data.sources import open_source
from experiments.data.splits import label_subset
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.probes import knn_top1, linear_top1
from experiments.studies import STUDIES, sweep
from experiments.studies.budgets import Budget, Length
from experiments.training.workdir import read_json
from tests.experiments.tiny import Lines, tiny_config

CONFIG = tiny_config(model={"depths": (1,), "dims": (4,), "stem_stride": 8})
BUDGET = Budget(pretraining_steps=2, few=(Length("20", 2, 10, rates=(3e-3,)),), more_rates=0)
START = "seed_0/labels_20/{}/rate_0.003"


class Sealed(MemorySplit):
    """Images that must not be read."""

    def in_order(self):
        raise AssertionError("the test images were read")

    def shuffled(self, *arguments):
        self.in_order()


def open_sealed(config):
    """Opens a source whose test images must not be read."""
    source = open_source(config)
    test = source.split("test")
    return dataclasses.replace(source, splits={**source.splits, "test": Sealed(test.contents, test.labels)})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study that is complete, and in which nothing that trains could read the test images."""
    study = sweep.open_study(STUDIES, tmp_path_factory.mktemp("study"), "fewer_labels", CONFIG, BUDGET, num_seeds=1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (pretrain, finetune):
            monkeypatch.setattr(module, "open_source", open_sealed)
        sweep.run(study, log=Lines())
    return study


def test_training_and_choosing_read_no_test_image(study):
    for start in ("pretrained", "scratch"):
        folder = study.root / START.format(start)
        summary = read_json(folder / "summary.json")
        assert "validation_top1" in summary and not any("test" in name for name in summary)
        assert (folder / "report_validation.csv").exists() and not (folder / "report_test.csv").exists()


def test_the_figure_is_the_share_of_right_test_images_of_the_saved_classifier(study):
    folder = study.root / START.format("pretrained")
    classifier = keras.saving.load_model(folder / "classifier.keras")
    split = open_source(CONFIG.data).split("test")
    images = np.stack([Preprocessing.of(CONFIG.data).for_evaluation(content) for content in split.contents])
    right = np.argmax(classifier(images), axis=-1) == split.labels
    record = read_json(folder / "test.json")
    assert record == {"test_top1": pytest.approx(100 * right.mean()), "images": 539}
    assert read_json(study.root / "results.json")["rows"][0]["finetuned"]["pretrained"]["mean"] == record["test_top1"]


def test_a_run_comes_to_the_same_alone(study, tmp_path):
    folder = study.root / START.format("scratch")
    config = Config.from_dict(read_json(folder / "config.json")["config"])
    finetune.run(config, tmp_path / "alone", log=Lines())
    one, other = (keras.saving.load_model(f / "classifier.keras").get_weights() for f in (folder, tmp_path / "alone"))
    for value, expected in zip(one, other, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_probes_are_those_of_the_encoder_with_the_labels_of_fine_tuning(study):
    probes = {e: read_json(study.root / f"seed_0/probes/{e}/probes.json") for e in ("pretrained", "random")}
    source = open_source(CONFIG.data)
    encoder = keras.saving.load_model(study.root / "seed_0/pretraining/encoder.keras")
    features_of = PooledFeatures(encoder, Preprocessing.of(CONFIG.data), 100)
    train = features_of(label_subset(source.split("train"), "20", 10, 0))
    validation, test = (features_of(source.split(name)) for name in ("validation", "test"))
    assert len(train[1]) == 20
    expected = {"knn": knn_top1(train, test), "linear": linear_top1(train, validation, test)}
    assert probes["pretrained"] == {"target": "test", "top1": {"20": pytest.approx(expected, abs=0.4)}}
    assert probes["random"]["top1"] != probes["pretrained"]["top1"]
