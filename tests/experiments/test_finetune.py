"""What a fine-tuning run leaves behind: last, averaged and best classifiers, and a report that agrees with them."""

import csv
import dataclasses

import keras
import numpy as np
import pytest

from convnext.pretrained import named_variables
from experiments import evaluate, finetune
from experiments.data.pipeline import Preparation, evaluation_batches
from experiments.data.sources import open_source
from experiments.training import validation
from experiments.training.tracking import read_metrics
from tests.experiments.tiny import Lines, change, tiny_config

MODEL = {"depths": (1,), "dims": (4,), "stem_stride": 8}
# On two devices, in batches that divide neither the 539 test nor the 180 validation images.
CONFIG = tiny_config(
    finetune={
        **{"labels": "all", "steps": 0, "epochs": 4, "batch_size": 154, "evaluations": 4, "ema_decay": 0.8},
        **{"base_learning_rate": 0.3, "layer_decay": 0.5, "label_smoothing": 0.1},
    },
    model=MODEL,
    logical_cpus=2,
    seed=3,
    checkpoint_every=14,
)
SOURCE = open_source(CONFIG.data)
FILES = {"": "classifier.keras", "_ema": "classifier_ema.keras", "best": "classifier_best.keras"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`(workdir, summary, lines)` of a finished run."""
    workdir, lines = tmp_path_factory.mktemp("runs") / "first", Lines()
    return workdir, finetune.run(CONFIG, workdir, say=lines), lines


@pytest.fixture(scope="module")
def top1(run):
    """`{(file, split): top-1}` of the saved classifiers, taken image by image in NumPy."""
    found = {}
    for file in FILES.values():
        model = keras.saving.load_model(run[0] / file)
        for name in ("validation", "test"):
            split = SOURCE.split(name)
            whole = evaluation_batches(split, Preparation.of(CONFIG.data), split.num_examples)
            (batch,) = whole.as_numpy_iterator()
            hits = np.asarray(model(batch["images"])).argmax(axis=1) == batch["labels"]
            found[file, name] = 100 * hits.sum() / split.num_examples
    return found


def test_the_summary_has_the_figures_of_every_saved_classifier(run, top1):
    _, summary, lines = run
    assert "  devices       2 x CPU, mirrored, float32" in lines
    for suffix in ("", "_ema"):
        for split in ("validation", "test"):
            assert summary[f"{split}_top1{suffix}"] == pytest.approx(top1[FILES[suffix], split])
    for split in ("validation", "test"):
        assert summary["best"][f"{split}_top1"] == pytest.approx(top1[FILES["best"], split])
    assert len(set(top1.values())) >= 4  # they are different models


def test_the_best_is_the_best_of_all_evaluations(run):
    workdir, summary, _ = run
    found = [
        (line[name], -line["step"], kind)
        for line in read_metrics(workdir)
        for name, kind in (("validation_top1", "plain"), ("validation_top1_ema", "ema"))
        if name in line
    ]
    assert len(found) == 8
    best = summary["best"]
    top1, negative_step, kind = max(found, key=lambda item: item[:2])
    assert (best["validation_top1"], best["step"], best["weights"]) == (top1, -negative_step, kind)
    assert best["epoch"] == best["step"] / 7


def test_the_report_is_that_of_the_last_classifier(run):
    workdir, summary, _ = run
    with open(workdir / "report_test.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = SOURCE.split("test").labels
    assert [int(row["images"]) for row in rows] == np.bincount(labels).tolist()
    assert 100.0 * sum(int(row["correct"]) for row in rows) / 539 == summary["test_top1"]
    assert (workdir / "confusion_test.png").stat().st_size > 10_000


def test_rates_fall_towards_the_stem(run):
    with open(run[0] / "parameters.csv", encoding="utf-8") as file:
        rates = {row["variable"]: float(row["peak_learning_rate"]) for row in csv.DictReader(file)}
    peak = 0.3 * 154 / 256
    assert rates["classifier/head/kernel"] == pytest.approx(peak)
    assert (
        rates["classifier/stem/conv/kernel"]
        == rates["classifier/stage_0/block_0/norm/gamma"]
        == pytest.approx(peak / 2)
    )


def test_the_best_can_be_evaluated_by_name(run):
    results = evaluate.run(run[0] / FILES["best"], probes=("top1",), say=Lines())
    assert results["top1"]["model"] == run[1]["best"]["test_top1"]


def test_a_run_that_goes_on_knows_the_best_of_before(run, tmp_path, monkeypatch):
    """Stopped after the third of four evaluations, of which the first was the best by far."""
    figures = iter([90.0, 10.0, 20.0, 30.0, 40.0, 50.0])

    def evaluation(self):
        try:
            return next(figures)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(finetune.TopOne, "__call__", evaluation)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(CONFIG, tmp_path, say=Lines())
    kept = (tmp_path / FILES["best"]).read_bytes()
    monkeypatch.setattr(finetune.TopOne, "__call__", lambda self: 60.0)
    lines = Lines()
    summary = finetune.run(CONFIG, tmp_path, say=lines)
    assert "  starts from   its own checkpoint of step 14" in lines
    assert {**summary["best"], "test_top1": None} == {
        **{"step": 7, "epoch": 1.0, "weights": "plain", "validation_top1": 90.0, "test_top1": None}
    }
    assert (tmp_path / FILES["best"]).read_bytes() == kept
    assert summary["validation_top1_ema"] == 60.0
    assert summary["test_top1"] == run[1]["test_top1"]  # and ends where the run that was not stopped ends


def test_the_earliest_of_equals_is_the_best(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    best = validation.Best(model, tmp_path)
    assert best.record is None
    for step, weights, top1 in ((2, "plain", 50.0), (2, "ema", 50.0), (4, "plain", 49.0), (6, "ema", 51.0)):
        best.consider(step, step / 2, weights, top1)
    assert best.record == {"step": 6, "epoch": 3.0, "weights": "ema", "validation_top1": 51.0}


def test_with_a_frozen_encoder_the_logits_alone_move(pictures, tmp_path, run):
    """From a pretrained classifier of as many classes, whose logits are loaded too; nothing is held out."""
    config = dataclasses.replace(
        change(CONFIG, "finetune", frozen_encoder=True, layer_decay=1.0, steps=2, ema_decay=0.0, evaluations=0),
        pretrained=str(run[0]),
        logical_cpus=0,
    )
    summary = finetune.run(config, tmp_path, say=Lines())
    before, after = (keras.saving.load_model(folder / FILES[""]) for folder in (run[0], tmp_path))
    moved = set()
    for name, variable in named_variables(before).items():
        if not np.array_equal(np.asarray(variable.value), np.asarray(named_variables(after)[name].value)):
            moved.add(name)
    assert moved == {"head/kernel", "head/bias"}
    assert "validation_top1_ema" not in summary and not (tmp_path / FILES["_ema"]).exists()
    assert summary["best"]["step"] == 2
    # The logits began with what was loaded, not with what the initial scale makes of it.
    change_of_kernel = np.asarray(named_variables(after)["head/kernel"].value) - np.asarray(
        named_variables(before)["head/kernel"].value
    )
    assert np.abs(change_of_kernel).max() < 1.0
