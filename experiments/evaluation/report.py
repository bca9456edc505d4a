"""What a classifier gets right and wrong, class by class: a table, and a picture of the confusions."""

import csv

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from sklearn import metrics

from experiments.evaluation.classification import THRESHOLD, top_one

MOST_NAMED = 25  # classes up to which the picture names all of them
MOST_CELLS = 250  # rows and columns of the picture of more classes, which share cells
PAIRS_SHOWN = 20


def write_report(path, labels, predicted, class_names):
    """Writes a CSV file with a row for each class.

    Its columns: `class`; `images` of it; how many of them are `correct`; how many images are `predicted` to be of it;
    `top1` (the recall), `precision` and `f1` in percent, empty where there is nothing to take them of. The sum of
    `correct` over that of `images` is the top-1 of the whole.

    Args:
        path: of the file.
        labels: `(N,)` integers.
        predicted: the same, of a classifier.
        class_names: names of the classes.
    """
    classes = np.arange(len(class_names))
    precision, recall, f1, images = metrics.precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=np.nan
    )
    correct = np.bincount(labels[labels == predicted], minlength=len(classes))
    taken = np.bincount(predicted, minlength=len(classes))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("class", "images", "correct", "predicted", "top1", "precision", "f1"))
        for row in zip(class_names, images, correct, taken, recall, precision, f1):
            writer.writerow((*row[:4], *map(_percent, row[4:])))


def write_multi_label_report(path, targets, scores, class_names):
    """Writes a CSV file with a row for each class of a multi-label classifier.

    Its columns: `class`; `images` of it; how many of them are `correct`, which is predicted with a share above 0.5; how
    many images are `predicted` to be of it; `average_precision`, `recall`, `precision` and `f1` in percent, empty where
    there is nothing to take them of. The mean of `average_precision` is the `map` of the whole.

    Args:
        path: of the file.
        targets: `(N, num_classes)` booleans.
        scores: the same shape, the shares that a classifier gives.
        class_names: names of the classes.
    """
    predicted = scores > THRESHOLD
    images, taken, correct = (np.count_nonzero(values, axis=0) for values in (targets, predicted, targets & predicted))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("class", "images", "correct", "predicted", "average_precision", "recall", "precision", "f1"))
        for i, name in enumerate(class_names):
            finite = images[i] and np.isfinite(scores[:, i]).all()
            shares = (
                metrics.average_precision_score(targets[:, i], scores[:, i]) if finite else np.nan,
                _share(correct[i], images[i]),
                _share(correct[i], taken[i]),
                _share(2 * correct[i], images[i] + taken[i]),
            )
            writer.writerow((name, images[i], correct[i], taken[i], *map(_percent, shares)))


def _share(part, whole):
    return part / whole if whole else np.nan


def _percent(share):
    return "" if np.isnan(share) else f"{100 * share:.6g}"


@matplotlib.rc_context({"text.parse_math": False})  # names of classes are no formulas, whatever dollars they hold
def draw_confusion(path, labels, predicted, class_names, title):
    """Draws which classes are taken for which.

    Up to 25 classes the picture is a table of counts, a row for each class. With more it is an image of the mistakes,
    beside the pairs of classes that are confused most.

    Args:
        path: of the PNG file.
        labels: `(N,)` integers.
        predicted: the same, of a classifier.
        class_names: names of the classes.
        title: what the images are; the top-1 is added.
    """
    small = len(class_names) <= MOST_NAMED
    figure = _table(labels, predicted, class_names) if small else _overview(labels, predicted, class_names)
    figure.suptitle(f"{title}: top-1 {top_one(labels, predicted):.2f}% of {len(labels):,} images", fontsize=11)
    figure.savefig(path, dpi=110, format="png")


def most_confused(labels, predicted, count):
    """Returns up to `count` pairs of classes, `[(class, taken for, images), ...]`, the most frequent first."""
    wrong = labels != predicted
    pairs, images = np.unique(np.stack([labels[wrong], predicted[wrong]]), axis=1, return_counts=True)
    order = np.argsort(-images, kind="stable")[:count]
    return [(int(pairs[0, i]), int(pairs[1, i]), int(images[i])) for i in order]


def _table(labels, predicted, class_names):
    count = len(class_names)
    matrix = metrics.confusion_matrix(labels, predicted, labels=np.arange(count))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 0.42 * count)
    figure = Figure(figsize=(side + 2.5, side + 1.6), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in np.argwhere(matrix):
        color = "white" if shares[row, column] > 0.5 else "black"
        axis.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=color, fontsize=7)
    names = [_short(name, 24) for name in class_names]
    long = max(map(len, names)) > 3
    axis.set_xticks(range(count), names, rotation=90 if long else 0, fontsize=8)
    axis.set_yticks(range(count), names, fontsize=8)
    _name_axes(axis)
    bar = figure.colorbar(image, ax=axis, shrink=0.7)
    bar.set_label("share of the class", fontsize=9)
    return figure


def _overview(labels, predicted, class_names):
    figure = Figure(figsize=(15, 7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_mistakes(figure, left, labels, predicted, len(class_names))
    _draw_pairs(right, labels, predicted, class_names)
    return figure


def _draw_mistakes(figure, axis, labels, predicted, num_classes):
    """Where the mistakes are; what is right would drown them."""
    wrong = labels != predicted
    per_cell = -(-num_classes // MOST_CELLS)
    cells = -(-num_classes // per_cell)
    matrix, _, _ = np.histogram2d(labels[wrong] // per_cell, predicted[wrong] // per_cell, bins=np.arange(cells + 1))
    end = cells * per_cell - 0.5
    image = axis.imshow(
        np.where(matrix, matrix, np.nan),
        cmap="viridis_r",
        norm=LogNorm(1.0, max(10.0, matrix.max())),
        extent=(-0.5, end, end, -0.5),
        interpolation="nearest",
    )
    bar = figure.colorbar(image, ax=axis, shrink=0.7, format="%g")
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.set_label("images", fontsize=9)
    axis.set_title("mistakes" + (f", {per_cell} x {per_cell} classes in a cell" if per_cell > 1 else ""), fontsize=10)
    _name_axes(axis)


def _draw_pairs(axis, labels, predicted, class_names):
    pairs = most_confused(labels, predicted, PAIRS_SHOWN)
    sizes = np.bincount(labels, minlength=len(class_names))
    names = [f"{_short(class_names[one], 22)} → {_short(class_names[other], 22)}" for one, other, _ in pairs]
    axis.barh(range(len(pairs)), [images for _, _, images in pairs], color="tab:blue")
    axis.set_yticks(range(len(pairs)), names, fontsize=8)
    for place, (one, _, images) in enumerate(pairs):
        axis.text(images, place, f" {images:,} of {sizes[one]:,}", va="center", fontsize=8)
    axis.set_xlim(0, 1.2 * max((images for _, _, images in pairs), default=1))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(PAIRS_SHOWN - 0.5, -0.5)
    axis.set_title("most confused: class → taken for", fontsize=10)
    axis.set_xlabel("images", fontsize=9)


def _name_axes(axis):
    axis.set_xlabel("predicted", fontsize=9)
    axis.set_ylabel("class", fontsize=9)


def _short(name, width):
    """Cuts the middle out of a long name: names that begin alike often end differently."""
    if len(name) <= width:
        return name
    return f"{name[: width // 2]}…{name[len(name) - (width - 1) // 2 + 1 :]}"
