"""Tables and curves of the study in JAX, from its records alone."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from scipy import stats

from experiments.errors import UserError
from experiments.jax_study.study import LENGTHS, STARTS
from experiments.studies.report import difference, markdown_table, shown, summary

MEASURES = {"loss": "loss", "linear": "linear probe, validation, %", "feature_rank": "rank of the features"}


def report_lines(root: str) -> list[str]:
    """Returns the tables of a study as lines of Markdown, and draws `curves.png` in its folder.

    Raises:
        UserError: if the folder has no complete pretraining.
    """
    folder = pathlib.Path(root)
    runs = {path.parts[-3]: _read(path) for path in sorted(folder.glob("seed_*/pretraining/record.json"))}
    if not runs:
        raise UserError(f"{root} has no complete pretraining: run --part=pretrain first.")
    _draw(folder / "curves.png", runs)
    one = next(iter(runs.values()))
    origin = f"commit {(one['commit'] or 'unknown')[:7]}, {one['device']}, JAX {one['versions'].get('jax')}"
    return [*_curve_lines(runs), "", *_finetuning_lines(folder), "", f"({len(runs)} seeds; {origin})"]


def _curve_lines(runs: Mapping[str, dict[str, Any]]) -> list[str]:
    """A row for each time of probing; and how well the rank of the features orders these, run by run."""
    curves, rows = [run["curve"] for run in runs.values()], []
    for points in zip(*curves):
        figures = [summary({i: point[name] for i, point in enumerate(points)}) for name in MEASURES]
        loss = figures[0]["mean"]
        epoch = _epochs(next(iter(runs.values())), points[0]["step"])
        rows.append([f"{epoch:.0f}", f"{loss:.3f}" if loss else "", *(shown(figure) for figure in figures[1:])])
    orders = [
        stats.spearmanr([point["linear"] for point in curve[1:]], [point["feature_rank"] for point in curve[1:]])
        for curve in curves
    ]
    shares = ", ".join(f"{order.statistic:.2f}" for order in orders)
    return [
        *markdown_table(["epochs", *MEASURES.values()], rows),
        "",
        f"Spearman correlation of linear probe and rank over the points after the first, run by run: {shares}.",
    ]


def _finetuning_lines(folder: pathlib.Path) -> list[str]:
    rows = []
    for length in LENGTHS.values():
        tests: dict[str, dict[int, dict]] = {start: {} for start in STARTS}
        for path in sorted(folder.glob(f"labels_{length.labels or 'all'}/*/*_test.json")):
            record = _read(path)
            tests[record["start"]][record["seed"]] = record
        if all(tests.values()):
            figures = [
                summary({seed: record["test_top1"] for seed, record in tests[start].items()}) for start in STARTS
            ]
            chosen = ["{mixing}, {rate:.2g}, {steps:,}".format(**next(iter(tests[start].values()))) for start in STARTS]
            labels = next(iter(tests["scratch"].values()))["labels"]
            rows.append([f"{labels:,}", *map(shown, figures), shown(difference(*figures), signed=True), *chosen])
    header = ["labels", *STARTS, "gain", *(f"mixing, rate, steps: {start}" for start in STARTS)]
    return markdown_table(header, rows)


def _draw(path: pathlib.Path, runs: Mapping[str, dict[str, Any]]) -> None:
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axis, (name, label) in zip(figure.subplots(1, len(MEASURES)), MEASURES.items()):
        for seed, run in runs.items():
            points = [point for point in run["curve"] if point[name] is not None]
            epochs = [_epochs(run, point["step"]) for point in points]
            axis.plot(epochs, [point[name] for point in points], marker="o", label=seed.replace("_", " "))
        axis.set_xlabel("epochs of pretraining")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _epochs(run: Mapping[str, Any], step: int) -> float:
    return step / run["curve"][-1]["step"] * run["config"]["pretrain"]["epochs"]


def _read(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))
