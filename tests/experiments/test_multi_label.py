"""Fine-tuning on images of several classes: it learns, and its figures are scikit-learn's, in every place they show."""

import csv

import keras
import numpy as np
import pytest
from sklearn import metrics

from experiments import evaluate, finetune, pretrain
from experiments.data.pipeline import evaluation_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import open_source
from experiments.errors import UserError
from experiments.inference.export import Request, make_serving
from experiments.report.page import render
from experiments.report.reader import read_runs
from experiments.training.loggers import read_metrics
from experiments.training.workdir import read_json
from tests.experiments.images import encode, write
from tests.experiments.tiny import Lines, change, tiny_config

pytestmark = pytest.mark.figures("augmentation")

NAMES = ("bright", "left", "top")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A configuration of 240 grey images, each with any of: a bright ground, a mark on the left, a mark on the top."""
    root, rng = tmp_path_factory.mktemp("marks"), np.random.default_rng(0)
    lines = ["path,label,split"]
    for i in range(240):
        has = rng.random(3) < (0.5, 0.3, 0.6)
        pixels = rng.normal(60 + 80 * has[0], 15, (32, 32))
        pixels[8:24, :6] += 90 * has[1]
        pixels[:6, 8:24] += 90 * has[2]
        write(root / f"images/{i}.png", encode(np.clip(pixels, 0, 255).astype(np.uint8)))
        names = ";".join(name for name, present in zip(NAMES, has) if present)
        lines.append(f"{i}.png,{names},{('train', 'train', 'val', 'test')[i % 4]}")
    (root / "labels.csv").write_text("\n".join(lines))
    training = {
        **{"labels": "all", "steps": 60, "batch_size": 40, "evaluations": 3, "base_learning_rate": 0.05},
        **{"ema_decay": 0.8, "class_weights": "balanced", "label_smoothing": 0.05, "mixup_alpha": 0.2},
    }
    data = {"source": f"folder:{root / 'images'}", "labels_file": str(root / "labels.csv")}
    return tiny_config(finetune=training, data=data, model={"depths": (1,), "dims": (8,), "stem_stride": 8})


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """`(workdir, summary)` of a finished run."""
    workdir = tmp_path_factory.mktemp("runs") / "finetuned"
    return workdir, finetune.run(config, workdir, log=Lines())


def answers(config, model, split):
    """`(targets, scores)` of a saved classifier, as NumPy has them."""
    source = open_source(config.data)
    split = source.split(split)
    (batch,) = evaluation_batches(split, Preprocessing.of(config.data), split.num_examples).as_numpy_iterator()
    return source.label_sets[batch["labels"]], 1 / (1 + np.exp(-np.asarray(model(batch["images"]), "float64")))


def test_it_learns_and_the_summary_has_the_figures_of_every_classifier(config, run):
    workdir, summary = run
    assert summary["multi_label"] and summary["classes"] == list(NAMES) and "test_top1" not in summary
    files = {"": "classifier.keras", "_ema": "classifier_ema.keras", "best": "classifier_best.keras"}
    for kind, file in files.items():
        model = keras.saving.load_model(workdir / file)
        for split in ("validation", "test"):
            targets, scores = answers(config, model, split)
            precision = 100 * metrics.average_precision_score(targets, scores, average="macro")
            prefix, suffix = ("best_", "") if kind == "best" else ("", kind)
            assert summary[f"{prefix}{split}_map{suffix}"] == pytest.approx(precision)
            if (kind, split) != ("best", "validation"):
                f1 = 100 * metrics.f1_score(targets, scores > 0.5, average="macro")
                assert summary[f"{prefix}{split}_f1{suffix}"] == pytest.approx(f1)
    assert summary["test_map"] > 80 > 60 > 100 * targets.mean()  # the precision of guessing is the share of the class


def test_the_best_is_chosen_by_precision(run):
    workdir, summary = run
    found = [line[name] for line in read_metrics(workdir) for name in line if name.startswith("validation_map")]
    assert len(found) == 6 and summary["best_validation_map"] == max(found)


def test_the_report_has_a_row_for_each_class_and_the_page_shows_it(run):
    workdir, summary = run
    with open(workdir / "report_test.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(NAMES)
    precision = np.mean([float(row["average_precision"]) for row in rows])
    assert precision == pytest.approx(summary["test_map"], rel=1e-5)
    (found,) = read_runs([workdir])
    assert found.problems == []
    page = render([found], "marks")
    for text in (f"{summary['test_map']:.2f}", f"{summary['test_f1']:.2f}", "Average precision of each class", "left"):
        assert text in page
    assert f"{float(rows[1]['average_precision']):.2f}" in page


def test_evaluation_gives_the_figures_of_the_summary(run, config):
    workdir, summary = run
    results = evaluate.run(workdir, log=Lines())
    assert results == {name: {"model": pytest.approx(summary[f"test_{name}"])} for name in ("map", "f1")}
    folder, labels = config.data.source, config.data.labels_file
    again = evaluate.run(workdir, data=folder, labels_file=labels, probes=("map",), split="validation", log=Lines())
    assert again == {"map": {"model": pytest.approx(summary["validation_map"])}}


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ("top1", "classifier.keras has no top1; it has map and f1."),
        ("knn", "has images of several classes: --probe=knn needs one class per image."),
    ],
)
def test_figures_for_one_class_an_image_are_refused(run, probe, message):
    with pytest.raises(UserError, match=message):
        evaluate.run(run[0], probes=(probe,), log=Lines())


def test_probing_in_pretraining_is_refused(config, tmp_path):
    with pytest.raises(
        UserError, match=r"probe_every=1: .* has images of several classes, and probes are for one each"
    ):
        pretrain.run(change(config, "pretrain", probe_every=1), tmp_path / "run", log=Lines())


def test_exported_probabilities_are_those_of_a_sigmoid_each(config, run):
    workdir, _ = run
    model = keras.saving.load_model(workdir / "classifier.keras")
    serving = make_serving(model, Request("onnx", outputs="probabilities"), config.data, workdir / "classifier.keras")
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 1)).astype("float32")
    expected = 1 / (1 + np.exp(-np.asarray(model(images), "float64")))
    np.testing.assert_allclose(serving.apply(images), expected, rtol=1e-5)


def test_one_class_an_image_becomes_multi_label_by_the_field(tmp_path, pictures):
    config = tiny_config(
        data={"source": f"folder:{pictures}", "validation_share": 0.2},
        finetune={"labels": "all", "steps": 2, "multi_label": True, "evaluations": 1},
    )
    summary = finetune.run(config, tmp_path / "run", log=Lines())
    assert summary["multi_label"] and {"test_map", "validation_f1"} <= summary.keys() and "test_top1" not in summary
    assert read_json(tmp_path / "run" / "best.json", "").keys() >= {"validation_map"}
    results = evaluate.run(tmp_path / "run", log=Lines())
    assert results["map"] == {"model": pytest.approx(summary["test_map"])}
