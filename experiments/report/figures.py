"""Figures of runs: curves of metrics, drawn alike for `curves.png` and for the page, and pictures for the page."""

import base64
import dataclasses
import io
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

# Metrics that have a figure, with its title.
METRICS = {
    "loss": "training loss",
    "validation_loss": "validation loss",
    "validation_top1": "validation top-1 (%)",
    "validation_top1_ema": "validation top-1 of the average (%)",
    "validation_map": "validation mean average precision (%)",
    "validation_map_ema": "validation mean average precision of the average (%)",
    "validation_f1": "validation F1 (%)",
    "validation_mean_iou": "validation mean IoU (%)",
    "validation_mean_iou_ema": "validation mean IoU of the average (%)",
    "validation_pixel_accuracy": "validation accuracy of pixels (%)",
    "feature_rank": "effective rank of the features (RankMe)",
    "feature_std": "standard deviation of the features",
    "knn_top1": "k-NN, validation top-1 (%)",
    "linear_top1": "linear probe, validation top-1 (%)",
    "learning_rate": "learning rate",
}
# The same metric of an encoder with random weights, drawn as a level line.
RANDOM_ENCODER = {"knn_top1": "random_knn_top1", "linear_top1": "random_linear_top1"}

# Paul Tol's "vibrant" colours, which the colour-blind can tell apart. The page has its own shades of them.
COLORS = ("#0077BB", "#EE7733", "#009988", "#CC3311", "#33BBEE", "#EE3377")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))  # for the first six runs, the next and those after that
INK = "#0A0B0C"  # axes and text in an SVG: `currentColor` on the page
MAX_POINTS = 300
MAX_MARKERS = 25
LARGEST = 1e30  # magnitude above which a value counts as not finite: an axis cannot span it
MAX_PANELS_IN_ROW = 4
LARGE_FILE = 400_000  # bytes above which a picture is compressed with a loss that cannot be seen
WEBP_QUALITY = 88


@dataclasses.dataclass(frozen=True)
class Curve:
    """A metric of a run over time."""

    index: int  # of the run on the page, from 0; colour, marker and dashes follow from it
    x: np.ndarray  # `(N,)` steps or epochs, ascending
    y: np.ndarray  # `(N,)` values
    level: float | None = None  # value of an encoder with random weights

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]], metric: str, index: int = 0, unit: float = 1.0) -> Self | None:
        """Returns the curve of a metric in lines of `metrics.jsonl`, over steps divided by `unit`; None without any."""
        points = sorted((line["step"], line[metric]) for line in lines if metric in line)
        if not points:
            return None
        steps, values = np.array(points, np.float64).T
        levels = [line[name] for name in [RANDOM_ENCODER.get(metric)] for line in lines if name in line]  # type: ignore[index]
        return cls(index, steps / unit, values, levels[-1] if levels else None)


def draw_run(lines: Sequence[Mapping[str, Any]], title: str) -> Figure | None:
    """Returns a figure of the lines of a run's `metrics.jsonl`, an axis for each metric; None where it has none."""
    curves = {metric: curve for metric in METRICS if (curve := Curve.of(lines, metric))}
    if not curves:
        return None
    rows = -(-len(curves) // MAX_PANELS_IN_ROW)
    columns = -(-len(curves) // rows)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    for place, (metric, curve) in enumerate(curves.items(), 1):
        axis = figure.add_subplot(rows, columns, place)
        _draw(axis, [curve], "step")
        axis.set_title(METRICS[metric], fontsize=10)
        if curve.level is not None:
            axis.legend(axis.lines, ["this encoder", "random encoder"], fontsize=8)
    figure.suptitle(title, fontsize=11, parse_math=False)  # a name is no formula, whatever dollars it holds
    return figure


def draw_svg(curves: Iterable[Curve], x_label: str, name: str) -> str:
    """Returns a figure of several curves as an `svg` element that takes its colours from the page.

    Args:
        curves: `Curve`s.
        x_label: of the horizontal axis.
        name: of the figure, unique on the page.
    """
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify_threshold": 0.2}):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        axis = figure.subplots()
        _draw(axis, curves, x_label)
        axis.xaxis.label.set_color(INK)
        axis.tick_params(colors=INK)
        axis.spines[["left", "bottom"]].set_color(INK)
        file = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=metadata)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", text)
    text = re.sub(r"<(metadata|style)[ >].*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;]*;", "", text)
    text = re.sub(r'<g id="[a-zA-Z_0-9.]*">', "<g>", text)
    for color, variable in {INK: "currentColor", **{one: f"var(--run-{i})" for i, one in enumerate(COLORS)}}.items():
        text = re.sub(re.escape(color), variable, text, flags=re.IGNORECASE)
    return text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1).strip()


def _draw(axis: Axes, curves: Iterable[Curve], x_label: str) -> None:
    """Draws the finite points of curves, averaged where there are many; the axis ends below a few very high values."""
    drawn = []
    for curve in curves:
        color = COLORS[curve.index % len(COLORS)]
        x, y = _thinned(curve.x, curve.y)
        axis.plot(
            x,
            y,
            color=color,
            linestyle=DASHES[curve.index // len(COLORS) % len(DASHES)],
            linewidth=1.6,
            marker=MARKERS[curve.index % len(MARKERS)],
            markersize=5,
            markevery=1 if len(x) <= MAX_MARKERS else [len(x) - 1],
        )
        drawn.append(y)
        if curve.level is not None and abs(curve.level) < LARGEST:
            axis.axhline(curve.level, color=color, linestyle=(0, (1, 2)), linewidth=1.2)
    values = np.concatenate(drawn)
    if len(values):
        low, most, highest = np.percentile(values, (0, 95, 100))
        if highest - low > 8 * (most - low) > 0:
            axis.set_ylim(top=low + 1.5 * (most - low))
    axis.set_xlabel(x_label)
    axis.locator_params(axis="x", integer=True)
    axis.grid(color=INK, alpha=0.15, linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the finite points, or means of neighbouring ones where there are many."""
    finite = (np.abs(x) < LARGEST) & (np.abs(y) < LARGEST)
    x, y = x[finite], y[finite]
    if len(x) <= MAX_POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), MAX_POINTS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture for the page."""

    source: str  # the encoded picture as a `data:` URL
    width: int  # pixels
    height: int

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Returns the picture in the bytes of a PNG file; raises ValueError where there is none."""
        try:
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                image.load()
                size, kind = image.size, "png"
                if len(content) > LARGE_FILE:
                    smaller = io.BytesIO()
                    image.convert("RGB").save(smaller, "webp", quality=WEBP_QUALITY)
                    content, kind = smaller.getvalue(), "webp"
        except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
            raise ValueError(str(error).partition(" <")[0] or type(error).__name__) from error
        return cls(f"data:image/{kind};base64,{base64.b64encode(content).decode()}", *size)
