"""Evaluation of tiny finished runs, each beside a random encoder."""

import dataclasses
import json
import re
import shutil

import keras
import numpy as np
import pytest

from experiments import evaluate, finetune, pretrain
from experiments.data.pipeline import evaluation_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import open_source
from experiments.errors import UserError
from experiments.evaluation import features
from experiments.evaluation.classification import Predictions, classification_metrics
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.probes import knn_top1, linear_top1
from experiments.models import make_encoder
from experiments.training.workdir import read_json
from tests.experiments.images import broken_inside, gradient, write
from tests.experiments.tiny import Lines, picture_config, tiny_config

SHORT = {"steps": 2, "batch_size": 32}
DIGITS = tiny_config(pretrain=SHORT, finetune=SHORT)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A pretrained run, and one that was fine-tuned from it."""
    root, lines = tmp_path_factory.mktemp("runs"), Lines()
    pretrain.run(DIGITS, root / "pretrained", log=lines)
    config = dataclasses.replace(DIGITS, pretrained=str(root / "pretrained"))
    finetune.run(config, root / "finetuned", log=lines)
    assert any(
        re.search(r"starts from .*encoder.keras: \d+ variables loaded; newly initialised: head", x) for x in lines
    )
    return root


def expected_probes(encoder, names=("knn", "linear")):
    source, preprocessing = open_source(DIGITS.data), Preprocessing.of(DIGITS.data)
    train, validation, test = (
        PooledFeatures(encoder, preprocessing, 64)(source.split(name)) for name in ("train", "validation", "test")
    )
    figures = {"knn": lambda: knn_top1(train, test), "linear": lambda: linear_top1(train, validation, test)}
    return {name: figures[name]() for name in names}


def test_an_encoder_is_probed_beside_a_random_one_and_the_same_every_time(runs, monkeypatch):
    lines = Lines()
    results = evaluate.run(runs / "pretrained", log=lines)
    assert lines == [f"{runs / 'pretrained' / 'encoder.keras'} on 539 test images of digits"]
    assert set(results) == {"knn", "linear"}
    # Rounding may tip a neighbour.
    expected = expected_probes(keras.saving.load_model(runs / "pretrained" / "encoder.keras"))
    assert {name: figures["model"] for name, figures in results.items()} == pytest.approx(expected, abs=0.6)
    keras.utils.set_random_seed(DIGITS.seed)
    begun_with = expected_probes(make_encoder(DIGITS), ("knn",))
    assert results["knn"]["random"] == pytest.approx(begun_with["knn"], abs=0.6)
    # The random encoder is another one.
    assert any(figures["random"] != figures["model"] for figures in results.values())
    made = []
    monkeypatch.setattr(features, "evaluation_batches", lambda *args: made.append(args) or evaluation_batches(*args))
    assert evaluate.run(runs / "pretrained", probes=("knn",), log=Lines()) == {"knn": results["knn"]}
    assert len(made) == 2  # both encoders see the same data sets


@pytest.mark.parametrize(("split", "file"), [("test", ""), ("validation", "classifier_best.keras")])
def test_top1_of_a_fine_tuned_run_is_that_of_its_summary(runs, split, file):
    results = evaluate.run(runs / "finetuned" / file, probes=("top1",), split=split, log=Lines())
    assert list(results["top1"]) == ["model"]
    figure = f"best_{split}_top1" if file else f"{split}_top1"
    assert results["top1"]["model"] == pytest.approx(read_json(runs / "finetuned" / "summary.json")[figure])
    model = keras.saving.load_model(runs / "finetuned" / (file or "classifier.keras"))
    part = open_source(DIGITS.data).split(split)
    found = classification_metrics(*Predictions(model, part, Preprocessing.of(DIGITS.data), 100)())
    assert results["top1"]["model"] == pytest.approx(found["top1"])


def test_top1_of_an_encoder_is_refused(runs):
    message = "encoder.keras is an encoder: top1 needs a fine-tuned run. Use --probe=knn or --probe=linear."
    with pytest.raises(UserError, match=message):
        evaluate.run(runs / "pretrained", probes=("top1",), log=Lines())


def test_other_images_can_be_named(runs, pictures):
    lines = Lines()
    results = evaluate.run(runs / "pretrained", data=f"folder:{pictures}", probes=("knn",), log=lines)
    assert lines[0].endswith(f"on 5 test images of folder:{pictures}")
    assert np.isclose(results["knn"]["model"] % 20, 0) or np.isclose(results["knn"]["model"] % 20, 20)


def test_test_images_that_cannot_be_read_are_counted(tmp_path, pictures):
    for split in ("train", "test"):
        shutil.copytree(pictures, tmp_path / "images" / split)
    for i in (0, 5):
        write(tmp_path / f"images/test/class_1/{i}.png", broken_inside(gradient(32, 32, 1)))
    config, lines = picture_config(tmp_path / "images", finetune={"steps": 1}), Lines()
    summary = finetune.run(config, tmp_path / "run", log=lines)
    note = "test: 2 of 48 images cannot be read or have no label, and are left out"
    assert summary["test_unreadable"] == 2 and note in lines
    for probes in (("top1",), ("knn",)):
        lines = Lines()
        results = evaluate.run(tmp_path / "run", probes=probes, log=lines)
        assert note in lines
        assert np.isclose(results[probes[0]]["model"] * 46 / 100 % 1, [0, 1], atol=1e-6).any()


def test_validation_images_that_cannot_be_read_give_no_figures(tmp_path, pictures):
    shutil.copytree(pictures, tmp_path / "images/train")
    for name in ("class_0/a", "class_1/b"):
        write(tmp_path / f"images/val/{name}.png", broken_inside(gradient(32, 32, 1)))
    config = picture_config(tmp_path / "images", pretrain={"steps": 1, "evaluations": 1})
    lines = Lines()
    summary = pretrain.run(config, tmp_path / "run", log=lines)
    assert "validation: no image can be read, so nothing is measured" in lines
    assert not {"validation_loss", "feature_rank", "feature_std"} & summary.keys()


def test_a_classifier_of_other_classes_is_refused(runs, pictures):
    with pytest.raises(UserError, match="classifier.keras was fine-tuned on other classes than those of folder"):
        evaluate.run(runs / "finetuned", data=f"folder:{pictures}", log=Lines())


def test_a_classifier_can_be_probed_on_other_classes(runs, pictures):
    """As the message of the refusal promises."""
    results = evaluate.run(runs / "finetuned", data=f"folder:{pictures}", probes=("knn",), log=Lines())
    assert 0 <= results["knn"]["model"] <= 100


def test_images_without_labels_are_refused(runs, pictures):
    with pytest.raises(UserError, match="class_0 has no labels to evaluate with."):
        evaluate.run(runs / "pretrained", data=f"folder:{pictures / 'class_0'}", log=Lines())


def test_a_split_that_is_not_there_is_refused(tmp_path, runs, pictures):
    shutil.copy(runs / "pretrained" / "encoder.keras", tmp_path)
    config = {"task": "pretrain", "config": picture_config(pictures).to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="has no test images; it has train."):
        evaluate.run(tmp_path, log=Lines())


def test_a_model_without_its_configuration_is_refused(tmp_path, runs):
    shutil.copy(runs / "pretrained" / "encoder.keras", tmp_path)
    message = f"There is no config.json beside {tmp_path / 'encoder.keras'} that says how its images are prepared: give"
    with pytest.raises(UserError, match=re.escape(message)):
        evaluate.run(tmp_path, log=Lines())


def test_a_missing_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=re.escape(f"--model={tmp_path / 'x'}: There is no {tmp_path / 'x'}")):
        evaluate.run(tmp_path / "x", log=Lines())
