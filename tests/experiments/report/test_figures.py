"""Curves of the page: the points that are drawn are those of the metrics."""

import io
import re

import numpy as np
import pytest

from experiments.report.figures import COLORS, Curve, draw_run, draw_svg


def drawn(svg, place):
    """`(N, 2)` coordinates of the curve of a run."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', svg)
    curve = f"stroke: var(--run-{place}); stroke-width: 1.6"
    (path,) = (path for path, style in paths if curve in style)
    return np.array(re.findall(r"[ML] ([\d.-]+) ([\d.-]+)", path), float)


def test_points_are_those_of_the_curve():
    x = np.arange(1.0, 9.0)
    curves = {0: 100.0 / x, 3: 3.0 * x + 7.0}
    svg = draw_svg([Curve(place, x, y) for place, y in curves.items()], "epoch", "loss")
    points = {place: drawn(svg, place) for place in curves}
    # One linear map takes the values of both runs to the page.
    values, heights = np.concatenate(list(curves.values())), np.concatenate([points[0][:, 1], points[3][:, 1]])
    slope, offset = np.polyfit(values, heights, 1)
    assert slope < 0
    np.testing.assert_allclose(heights, slope * values + offset, atol=1e-3)
    np.testing.assert_allclose(np.diff(points[0][:, 0]), np.diff(points[0][:, 0])[0], atol=1e-3)


def test_a_long_curve_is_drawn_by_means_and_without_values_that_are_not_finite():
    x = np.arange(900.0)
    y = np.where(np.arange(900) % 2, np.sin(x / 100), -np.sin(x / 100))  # means of neighbours are nearly 0
    flat = draw_svg([Curve(0, np.append(x, 900), np.append(y, np.nan)), Curve(1, x[:2], np.array([-1, 1]))], "", "a")
    points = drawn(flat, 0)
    assert np.ptp(points[:, 1]) < 0.5 * np.ptp(drawn(flat, 1)[:, 1]) and "nan" not in flat


def test_a_level_of_a_random_encoder_has_the_color_of_its_run():
    svg = draw_svg([Curve(1, np.arange(3.0), np.arange(3.0), level=1.5)], "step", "k-NN")
    assert len(re.findall(r"stroke-dasharray[^\"]*; stroke-dashoffset[^\"]*; stroke: var\(--run-1\)", svg)) == 1


def test_colors_are_those_of_the_page():
    svg = draw_svg([Curve(i, np.arange(2.0), np.arange(2.0) + i) for i in range(7)], "step", "loss")
    assert not re.search("|".join(COLORS), svg, re.IGNORECASE)
    assert "currentColor" in svg and "var(--run-5)" in svg


def test_the_figure_of_a_run_has_an_axis_for_each_metric_that_it_has():
    lines = [{"step": 0, "random_knn_top1": 10.0, "random_linear_top1": 20.0}]
    lines += [{"step": i, "loss": 1.0 / i, "knn_top1": 30.0 + i, "linear_top1": 40.0} for i in (1, 2)]
    lines += [{"step": 3, "loss": 0.2, "learning_rate": 0.1, "validation_loss": 2.0}]
    figure = draw_run(lines, r"$\no-formula$")
    figure.savefig(io.BytesIO())
    axes = figure.axes
    assert {axis.get_title(): [list(line.get_ydata()) for line in axis.lines] for axis in axes} == {
        "training loss": [[1.0, 0.5, 0.2]],
        "validation loss": [[2.0]],
        "k-NN, validation top-1 (%)": [[31.0, 32.0], [10.0, 10.0]],
        "linear probe, validation top-1 (%)": [[40.0, 40.0], [20.0, 20.0]],
        "learning rate": [[0.1]],
    }
    assert list(axes[0].lines[0].get_xdata()) == [1, 2, 3]
    assert not np.mod(axes[0].get_xticks(), 1).any()  # no half steps
    assert [text.get_text() for text in axes[2].get_legend().texts] == ["this encoder", "random encoder"]
    assert draw_run([{"step": 1, "other": 2.0}], "run") is None


@pytest.mark.parametrize("values", [[1e308, -1e308], [np.inf, -np.inf], [1.0, 1e308, -1e308, np.nan]])
def test_values_that_no_axis_spans_are_left_out(values):
    svg = draw_svg([Curve(0, np.arange(float(len(values))), np.array(values), level=1e308)], "step", "loss")
    assert "<svg" in svg and "nan" not in svg and "inf" not in svg


def test_all_curves_without_finite_values_make_a_figure():
    assert "<svg" in draw_svg([Curve(0, np.arange(2.0), np.full(2, np.nan))], "step", "loss")
