"""Reports on each class: tables of metrics, and a picture of the confusion matrix."""

import csv
import os
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from sklearn import metrics

from experiments.evaluation.classification import THRESHOLD
from experiments.picture_text import plain_text

MOST_NAMED = 25  # classes up to which the picture names all of them
MOST_CELLS = 250  # rows and columns of the picture; if there are more classes, they share cells
PAIRS_SHOWN = 20
CHARACTERS_PER_INCH = 10  # of a title


def write_class_report(
    path: str | os.PathLike[str], matrix: np.ndarray, class_names: Sequence[str], unit: str = "images"
) -> None:
    """Writes a CSV file with a row for each class of a classifier, or of a segmentation.

    Its columns: `class`; `images` or `pixels` of it; how many of them are `correct`; how many are `predicted` to be of
    it; for images `top1` (the recall), for pixels `iou` and `recall`; `precision` and `f1` (Dice), in percent, empty if
    undefined. The sum of `correct` divided by the sum of `images` is the overall top-1.

    Args:
        path: of the file.
        matrix: `(num_classes, num_classes)` integers, how often a class (row) is taken for another.
        class_names: names of the classes.
        unit: what is counted, `images` or `pixels`.
    """
    counts = own, correct, taken = matrix.sum(axis=1), np.diag(matrix), matrix.sum(axis=0)
    rates = _rates(*counts)
    first = {"iou": _shares(correct, own + taken - correct)} if unit == "pixels" else {"top1": rates.pop("recall")}
    _write(path, unit, class_names, counts, {**first, **rates})


def write_multi_label_report(
    path: str | os.PathLike[str], targets: np.ndarray, scores: np.ndarray, class_names: Sequence[str]
) -> None:
    """Writes a CSV file with a row for each class of a multi-label classifier.

    Its columns: `class`; `images` of it; how many of them are `correct`, predicted with a probability above 0.5; how
    many images are `predicted` to be of it; `average_precision`, `recall`, `precision` and `f1` in percent, empty if
    undefined. The mean of `average_precision` is the overall `map`.

    Args:
        path: of the file.
        targets: `(N, num_classes)` booleans.
        scores: the same shape, the probabilities that a classifier gives.
        class_names: names of the classes.
    """
    predicted = scores > THRESHOLD
    images, taken, correct = (np.count_nonzero(values, axis=0) for values in (targets, predicted, targets & predicted))
    precision = [
        metrics.average_precision_score(of_class, scored) if of_class.any() and np.isfinite(scored).all() else np.nan
        for of_class, scored in zip(targets.T, scores.T)
    ]
    counts = images, correct, taken
    _write(path, "images", class_names, counts, {"average_precision": precision, **_rates(*counts)})


def _write(
    path: str | os.PathLike[str],
    unit: str,
    class_names: Sequence[str],
    counts: Iterable[np.ndarray],
    figures: Mapping[str, Iterable[float]],
) -> None:
    """Writes a row for each class: the three counts, and the figures, `{column: shares}`, in percent."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("class", unit, "correct", "predicted", *figures))
        for name, numbers, shares in zip(class_names, zip(*counts), zip(*figures.values())):
            writer.writerow((name, *numbers, *("" if np.isnan(share) else f"{100 * share:.6g}" for share in shares)))


def _rates(own: np.ndarray, correct: np.ndarray, taken: np.ndarray) -> dict[str, np.ndarray]:
    pairs = {"recall": (correct, own), "precision": (correct, taken), "f1": (2 * correct, own + taken)}
    return {name: _shares(*pair) for name, pair in pairs.items()}


def _shares(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    return np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)


def draw_confusion(
    path: str | os.PathLike[str], matrix: np.ndarray, class_names: Sequence[str], title: str, unit: str = "images"
) -> None:
    """Draws a confusion matrix.

    For up to 25 classes the picture is a table with a row for each class: counts of images, or shares of pixels in
    percent. For more classes it is an image of the mistakes, beside the pairs of classes that are confused most.

    Args:
        path: of the PNG file.
        matrix: `(num_classes, num_classes)` integers, how often a class (row) is taken for another.
        class_names: names of the classes.
        title: of the picture.
        unit: what is counted, `images` or `pixels`.
    """
    draw = _table if len(class_names) <= MOST_NAMED else _overview
    with plain_text((*class_names, title)) as (*shown, _):
        figure = draw(matrix, shown, unit)
        characters = round(CHARACTERS_PER_INCH * figure.get_figwidth())
        figure.suptitle(textwrap.fill(title, characters), fontsize=11)
        figure.savefig(path, dpi=110, format="png")


def most_confused(matrix: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """Returns up to `count` pairs of classes, `[(class, taken for, how often), ...]`, the most frequent first."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, matrix.shape))
    return [(int(one), int(other), int(wrong[one, other])) for one, other in pairs if wrong[one, other]]


def _table(matrix: np.ndarray, class_names: Sequence[str], unit: str) -> Figure:
    count = len(class_names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = max(4.0, 0.42 * count)
    figure = Figure(figsize=(side + 2.5, side + 1.6), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for row, column in np.argwhere(matrix):
        color = "white" if shares[row, column] > 0.5 else "black"
        text = f"{matrix[row, column]:,}" if unit == "images" else f"{100 * shares[row, column]:.1f}"
        axis.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
    names = [_short(name, 24) for name in class_names]
    long = max(map(len, names)) > 3
    axis.set_xticks(range(count), names, rotation=90 if long else 0, fontsize=8)
    axis.set_yticks(range(count), names, fontsize=8)
    _name_axes(axis)
    bar = figure.colorbar(image, ax=axis, shrink=0.7)
    bar.set_label("share of the class", fontsize=9)
    return figure


def _overview(matrix: np.ndarray, class_names: Sequence[str], unit: str) -> Figure:
    figure = Figure(figsize=(15, 7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_mistakes(figure, left, matrix, unit)
    _draw_pairs(right, matrix, class_names, unit)
    return figure


def _draw_mistakes(figure: Figure, axis: Axes, matrix: np.ndarray, unit: str) -> None:
    """Draws the mistakes without the diagonal, which would hide them."""
    per_cell = -(-len(matrix) // MOST_CELLS)
    cells = -(-len(matrix) // per_cell)
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    starts = np.arange(cells) * per_cell
    shown = np.add.reduceat(np.add.reduceat(wrong, starts, axis=0), starts, axis=1)
    end = cells * per_cell - 0.5
    image = axis.imshow(
        np.where(shown, shown, np.nan),
        cmap="viridis_r",
        norm=LogNorm(1.0, max(10.0, shown.max())),
        extent=(-0.5, end, end, -0.5),
        interpolation="nearest",
    )
    bar = figure.colorbar(image, ax=axis, shrink=0.7, format="%g")
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.set_label(unit, fontsize=9)
    axis.set_title("mistakes" + (f", {per_cell} x {per_cell} classes in a cell" if per_cell > 1 else ""), fontsize=10)
    _name_axes(axis)


def _draw_pairs(axis: Axes, matrix: np.ndarray, class_names: Sequence[str], unit: str) -> None:
    pairs = most_confused(matrix, PAIRS_SHOWN)
    sizes = matrix.sum(axis=1)
    names = [f"{_short(class_names[one], 22)} → {_short(class_names[other], 22)}" for one, other, _ in pairs]
    axis.barh(range(len(pairs)), [number for _, _, number in pairs], color="tab:blue")
    axis.set_yticks(range(len(pairs)), names, fontsize=8)
    for place, (one, _, number) in enumerate(pairs):
        axis.text(number, place, f" {number:,} of {sizes[one]:,}", va="center", fontsize=8)
    axis.set_xlim(0, 1.2 * max((number for _, _, number in pairs), default=1))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(PAIRS_SHOWN - 0.5, -0.5)
    axis.set_title("most confused: class → taken for", fontsize=10)
    axis.set_xlabel(unit, fontsize=9)


def _name_axes(axis: Axes) -> None:
    axis.set_xlabel("predicted", fontsize=9)
    axis.set_ylabel("class", fontsize=9)


def _short(name: str, width: int) -> str:
    """Cuts the middle out of a long name: names that begin alike often end differently."""
    if len(name) <= width:
        return name
    return f"{name[: width // 2]}…{name[len(name) - (width - 1) // 2 + 1 :]}"
