"""The report on a classifier beside NumPy."""

import csv

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from experiments.evaluation.class_reports import (
    draw_confusion,
    most_confused,
    write_class_report,
    write_multi_label_report,
)
from experiments.evaluation.classification import classification_metrics, confusion, top_one

NAMES = ("cat, small", "dog", "never seen", "never said")
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 3, 3])
PREDICTED = np.array([0, 0, 1, 2, 1, 1, 0, 0, 1])


@pytest.fixture
def rows(tmp_path):
    write_class_report(tmp_path / "report.csv", confusion(LABELS, PREDICTED, len(NAMES)), NAMES)
    with open(tmp_path / "report.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_report_counts_and_shares_by_class(rows):
    assert [row["class"] for row in rows] == list(NAMES)
    counts = [[int(row[name]) for name in ("images", "correct", "predicted")] for row in rows]
    assert counts == [[4, 2, 4], [3, 2, 4], [0, 0, 1], [2, 0, 0]]
    shares = [[row[name] for name in ("top1", "precision", "f1")] for row in rows]
    assert shares[0] == ["50", "50", "50"]
    assert [float(share) for share in shares[1]] == pytest.approx([100 * 2 / 3, 50, 100 * 2 / 3.5], rel=1e-5)
    assert shares[2] == ["", "0", "0"]  # no image to be right about
    assert shares[3] == ["0", "", "0"]  # nothing was said of it


def test_the_report_agrees_with_top_1_exactly(rows):
    correct, images = (sum(int(row[name]) for row in rows) for name in ("correct", "images"))
    assert 100.0 * correct / images == top_one(LABELS, PREDICTED) == 100.0 * 4 / 9


def test_the_multi_label_report_is_that_of_scikit_learn(tmp_path):
    rng = np.random.default_rng(0)
    targets, scores = rng.random((60, 4)) < (0.5, 0.2, 0.0, 0.3), rng.random((60, 4)).astype("float32")
    scores[:, 3] *= 0.4  # never predicted
    write_multi_label_report(tmp_path / "report.csv", targets, scores, NAMES)
    with open(tmp_path / "report.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(NAMES)
    precision, recall, f1, images = metrics.precision_recall_fscore_support(targets, scores > 0.5, zero_division=np.nan)
    assert [int(row["images"]) for row in rows] == images.tolist()
    assert [int(row["predicted"]) for row in rows] == (scores > 0.5).sum(axis=0).tolist()
    found = {name: [float(row[name] or "nan") / 100 for row in rows] for name in ("precision", "recall", "f1")}
    for name, expected in {"precision": precision, "recall": recall, "f1": f1}.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)
    averages = [float(row["average_precision"]) for row in rows if row["average_precision"]]
    expected = [100 * metrics.average_precision_score(targets[:, i], scores[:, i]) for i in (0, 1, 3)]
    np.testing.assert_allclose(averages, expected, rtol=1e-5)
    assert np.mean(averages) == pytest.approx(classification_metrics(targets, scores)["map"], rel=1e-5)


def test_the_most_confused_pairs_come_first():
    labels, predicted = np.array([0, 0, 0, 1, 1, 2, 2, 2]), np.array([1, 1, 2, 0, 1, 1, 1, 1])
    assert most_confused(confusion(labels, predicted, 3), 3) == [(2, 1, 3), (0, 1, 2), (0, 2, 1)]
    assert most_confused(confusion(labels, labels, 3), 3) == []


@pytest.mark.parametrize(("num_classes", "right"), [(3, 0.6), (30, 1.0), (600, 0.6)])
def test_the_picture_shows_something_for_any_number_of_classes(tmp_path, num_classes, right):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, num_classes, 400)
    predicted = np.where(rng.random(400) < right, labels, rng.integers(0, num_classes, 400))
    path = tmp_path / "confusion.png"
    names = [f"class {i}" for i in range(num_classes)]
    draw_confusion(path, confusion(labels, predicted, num_classes), names, "test images")
    pixels = np.asarray(Image.open(path).convert("L"))
    assert min(pixels.shape) > 400 and pixels.std() > 10


def test_a_long_title_stays_inside_the_picture(tmp_path):
    title = f"test images of folder:/{'a' * 200}: mean IoU 12.34%, share of each class in %"
    draw_confusion(tmp_path / "confusion.png", confusion(LABELS % 3, PREDICTED % 3, 3), ["a", "b", "c"], title)
    pixels = np.asarray(Image.open(tmp_path / "confusion.png").convert("L"))
    assert (pixels[:, [0, 1, -2, -1]] == 255).all() and (pixels[:60] < 128).any()


@pytest.mark.parametrize("num_classes", [3, 26])
def test_names_with_dollars_are_no_formulas(tmp_path, num_classes):
    names = [f"$\\nothing$ {i}" for i in range(num_classes)]
    matrix = confusion(LABELS % 3, PREDICTED % 3, num_classes)
    draw_confusion(tmp_path / "confusion.png", matrix, names, "test images of folder:/$\\nothing$")
    assert (tmp_path / "confusion.png").stat().st_size
