"""What a fine-tuning run leaves behind: last, averaged and best classifiers, and a report that agrees with them."""

import csv
import dataclasses

import keras
import numpy as np
import pytest

from convnext.weights.loader import named_variables
from experiments import finetune
from experiments.data.pipeline import evaluation_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import open_source
from experiments.training import validation
from experiments.training.loggers import read_metrics
from tests.experiments.tiny import Lines, change, tiny_config

pytestmark = pytest.mark.figures("confusion")

# On two devices, in batches that divide neither the 539 test nor the 180 validation images.
CONFIG = tiny_config(
    finetune={
        **{"labels": "all", "steps": 0, "epochs": 4, "batch_size": 154, "evaluations": 4, "ema_decay": 0.8},
        **{"base_learning_rate": 0.3, "layer_decay": 0.5, "label_smoothing": 0.1},
    },
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
    return workdir, finetune.run(CONFIG, workdir, log=lines), lines


@pytest.fixture(scope="module")
def top1(run):
    """`{(file, split): top-1}` of the saved classifiers, taken image by image in NumPy."""
    found = {}
    for file in FILES.values():
        model = keras.saving.load_model(run[0] / file)
        for name in ("validation", "test"):
            split = SOURCE.split(name)
            whole = evaluation_batches(split, Preprocessing.of(CONFIG.data), split.num_examples)
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
        assert summary[f"best_{split}_top1"] == pytest.approx(top1[FILES["best"], split])
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
    best = {name.removeprefix("best_"): value for name, value in summary.items() if name.startswith("best_")}
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
    for path in ("classifier/stem/conv/kernel", "classifier/stage_0/block_0/norm/gamma"):
        assert rates[path] == pytest.approx(peak / 2)


def test_the_best_is_the_earliest_of_equals_and_survives_a_restart(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    assert validation.Best(model, tmp_path).record is None
    course = [(2, "plain", 50.0), (2, "ema", 50.0), (4, "plain", 49.0), (6, "ema", 51.0), (8, "plain", 51.0)]
    for value, (step, weights, top1) in enumerate(course):
        model.set_weights([np.full((1, 1), value), np.zeros(1)])
        validation.Best(model, tmp_path).consider(step, step / 2, weights, top1)  # anew, as by a run that goes on
    best = validation.Best(model, tmp_path)
    assert best.record == {"step": 6, "epoch": 3.0, "weights": "ema", "validation_top1": 51.0}
    assert keras.saving.load_model(best.path).get_weights()[0] == 3.0
    best.drop_after(6)
    assert best.record["step"] == 6
    best.drop_after(5)  # a run that goes on from step 5: what came later may have been of another configuration
    assert best.record is None


def test_with_a_frozen_encoder_the_logits_alone_move_from_where_they_were(tmp_path, run):
    """From a classifier of as many classes: its logits are loaded, no initial scale acts on them, and the average too
    begins with them."""
    values = {
        **{"frozen_encoder": True, "layer_decay": 1.0, "steps": 2, "ema_decay": 0.8, "evaluations": 0},
        **{"base_learning_rate": 1e-4, "head_init_scale": 0.001},
    }
    config = dataclasses.replace(change(CONFIG, "finetune", **values), pretrained=str(run[0]), logical_cpus=0)
    summary = finetune.run(config, tmp_path, log=Lines())
    paths = (run[0] / FILES[""], tmp_path / FILES[""], tmp_path / FILES["_ema"])
    before, *others = (
        {name: np.asarray(variable.value) for name, variable in named_variables(model).items()}
        for model in (keras.saving.load_model(path) for path in paths)
    )
    for after in others:
        moves = {name: np.abs(after[name] - before[name]).max() for name in before}
        assert {name for name, move in moves.items() if move} == {"head/kernel", "head/bias"}
        assert moves["head/kernel"] < 2e-4 < 0.1 * np.abs(before["head/kernel"]).max()
    assert summary["best_step"] == 2
