"""Curves of several runs in one figure, as SVG that takes its colours from the page."""

import dataclasses
import io
import math
import re

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.report.markup import Markup, tag

# Paul Tol's "vibrant" colours, which the colour-blind can tell apart. The page has its own shades of them.
COLORS = ("#0077BB", "#EE7733", "#009988", "#CC3311", "#33BBEE", "#EE3377")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))  # for the first six runs, the next and those after that
INK = "#0A0B0C"  # axes and text: `currentColor` on the page
WIDTH, HEIGHT = 4.6, 3.0  # inches of 72 points
MOST_POINTS = 300
ALL_MARKED = 25  # points up to which each of them is marked


@dataclasses.dataclass(frozen=True)
class Curve:
    """The course of a metric of a run.

    Args:
        place: of the run on the page, from 0; its colour, marker and dashes follow from it.
        x: `(N,)` steps or epochs, ascending.
        y: `(N,)` values.
        level: what a random encoder has, or None.
    """

    place: int
    x: np.ndarray
    y: np.ndarray
    level: float | None = None


def draw_curves(curves, x_label, name):
    """Returns a figure of several curves as an `svg` element.

    Where a curve has more than 300 points, each that is drawn is the mean of neighbours. Values that are not finite are
    left out. If a few values are far above all others, the axis ends below them.

    Args:
        curves: `Curve`s.
        x_label: of the horizontal axis.
        name: of the figure, one of its own on the page.
    """
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify_threshold": 0.2}):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axis = figure.subplots()
        for curve in curves:
            _draw(axis, curve)
        _limit(axis, curves)
        axis.set_xlabel(x_label, color=INK)
        axis.grid(color=INK, alpha=0.15, linewidth=0.7)
        axis.tick_params(colors=INK)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(INK)
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    return _inline(file.getvalue(), name)


def swatch(place):
    """Returns a piece of the curves of a run, with its marker, as an `svg` element."""
    color = f"var(--run-{place % len(COLORS)})"
    dashes = (None, "7 3", "2 2")[place // len(COLORS) % len(DASHES)]
    line = tag("path", d="M1 7H27", stroke=color, stroke_width="2.5", stroke_dasharray=dashes)
    shapes = {
        "o": "M14 3a4 4 0 1 0 .01 0z",
        "s": "M10 3h8v8h-8z",
        "^": "M14 2l5 9h-10z",
        "D": "M14 1.5l5.5 5.5l-5.5 5.5l-5.5-5.5z",
        "v": "M14 12l5-9h-10z",
        "P": "M12 2h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
    }
    marker = tag("path", d=shapes[MARKERS[place % len(MARKERS)]], fill=color)
    return tag("svg", line, marker, class_="swatch", viewBox="0 0 28 14", width=28, height=14, aria_hidden="true")


def _draw(axis, curve):
    color = COLORS[curve.place % len(COLORS)]
    x, y = _fewer(curve.x, curve.y)
    axis.plot(
        x,
        y,
        color=color,
        linestyle=DASHES[curve.place // len(COLORS) % len(DASHES)],
        linewidth=1.6,
        marker=MARKERS[curve.place % len(MARKERS)],
        markersize=5,
        markevery=1 if len(x) <= ALL_MARKED else [len(x) - 1],
    )
    if curve.level is not None:
        axis.axhline(curve.level, color=color, linestyle=(0, (1, 2)), linewidth=1.2)


def _fewer(x, y):
    """Returns the finite points, or means of neighbouring ones where there are many."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(x) <= MOST_POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), MOST_POINTS)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def _limit(axis, curves):
    """Ends the vertical axis where nearly all values are, if a few are far above."""
    values = np.concatenate([_fewer(curve.x, curve.y)[1] for curve in curves])
    low, most, highest = np.percentile(values, (0, 95, 100)) if len(values) else (0.0, 0.0, 0.0)
    if math.isfinite(highest) and highest - low > 8 * (most - low) > 0:
        axis.set_ylim(top=low + 1.5 * (most - low))


def _inline(text, name):
    """Returns an SVG file as an element of a page: no declarations, no identifiers of its own, colours of the page."""
    text = text[text.index("<svg") :]
    text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", text)
    text = re.sub(r"<(metadata|style)[ >].*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;]*;", "", text)
    text = re.sub(r'<g id="[a-zA-Z_0-9.]*">', "<g>", text)
    text = re.sub(re.escape(INK), "currentColor", text, flags=re.IGNORECASE)
    for i, color in enumerate(COLORS):
        text = re.sub(re.escape(color), f"var(--run-{i})", text, flags=re.IGNORECASE)
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1).strip())
