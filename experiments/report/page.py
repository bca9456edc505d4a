"""Renders the page that compares runs: one HTML file with everything in it."""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, cast

import jinja2
from markupsafe import Markup

from experiments.errors import UserError
from experiments.io import FAULTS, as_path, reason, replacing
from experiments.provenance import command_line, provenance
from experiments.report.figures import COLORS, METRICS, RANDOM_ENCODER, Curve, draw_svg
from experiments.report.reader import read_runs, resolved
from experiments.report.run import CLASS_FIGURES, Run, clock, differing_fields, parsed, seconds_between
from experiments.training.loggers import is_number
from experiments.types import Path

MAX_DIFFERING_FIELDS = 5  # up to which each has a column in the table of runs
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def write_report(workdirs: Iterable[str | Path], output: str | Path, title: str = "") -> list[str]:
    """Writes a page that compares runs.

    Runs may be under way, interrupted, or have damaged or missing files: the page says so.

    Args:
        workdirs: paths or URLs of runs; one that is named twice is shown once.
        output: path or URL of the HTML file.
        title: of the page; empty for one that says what is compared.

    Returns:
        Lines about files that are missing or damaged.

    Raises:
        UserError: if a folder is not the workdir of a run, or the output is not the path of a file.
        StorageError: if the file cannot be written.
    """
    output = as_path(output)
    runs = read_runs(workdirs)
    page = render(runs, title or (runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"))
    try:
        if output.is_dir():
            raise UserError(f"--output={output} is a folder: name a file.")
        output.parent.mkdir(parents=True, exist_ok=True)
    except FAULTS as error:
        raise UserError(f"--output={output} cannot be written: {reason(error)}.") from error
    with replacing(output) as temporary:
        # A file may hold half of a surrogate pair, which UTF-8 has no bytes for.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return [f"{run.workdir}: {problem}" for run in runs for problem in run.problems]


def render(runs: Sequence[Run], title: str) -> str:
    """Returns the page of some `Run`s, an HTML document. All text is escaped but that of the template and the SVGs."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["run"] = lambda value: isinstance(value, Run)
    environment.filters.update(
        clock=clock,
        duration=duration,
        figure=lambda text: _format("{:.2f}", parsed(text)),
        json=lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        seconds=seconds_between,
    )
    groups = {task: [run for run in runs if run.task == task] for task in ("pretrain", "finetune", "")}
    groups = {task: chosen for task, chosen in groups.items() if chosen}
    tested = [run for run in runs if run.figure("test_top1") is not None]
    data = [run.config.get("data") for run in runs]
    return environment.get_template("template.html.j2").render(
        title=title,
        runs=runs,
        groups=groups,
        sources=list(dict.fromkeys(str(one["source"]) for one in data if isinstance(one, dict) and one.get("source"))),
        tested=tested,
        best=max(tested, key=lambda run: cast(float, run.figure("test_top1")), default=None),
        tables={task: _table(chosen, runs) for task, chosen in groups.items()},
        panels={task: panels for task, chosen in groups.items() if (panels := _panels(task, chosen))},
        has_random=any(name in line for run in runs for line in run.metrics for name in RANDOM_ENCODER.values()),
        class_tables=_class_tables(runs),
        class_figures=CLASS_FIGURES,
        differing=differing_fields(runs),
        num_colors=len(COLORS),
        provenance=provenance(),
        command=command_line(),
    )


def duration(seconds: float) -> str:
    """Returns a duration in words: its two largest units."""
    seconds = round(seconds)
    parts: list[str] = []
    for size, unit in UNITS:
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _table(runs: Sequence[Run], all_runs: Sequence[Run]) -> tuple[list[str], list[tuple]]:
    """Returns `(headings, [(run, cells), ...])`; a cell is a text, another run or None; empty columns are left out."""
    differing = differing_fields(runs)
    differing.pop("pretrained", None)  # has a column of its own
    rows = []
    for i, run in enumerate(runs):
        total = f" of {run.total_steps:,}" if run.steps < (run.total_steps or 0) else ""
        fields = [(name, texts[i]) for name, texts in differing.items()]
        rows.append(
            [
                ("state", run.state if not all(one.summary for one in runs) else None),
                ("starts from", _start(run, all_runs) if run.task == "finetune" else None),
                *(fields if len(fields) <= MAX_DIFFERING_FIELDS else [("fields that differ", len(fields))]),
                *_results(run, runs).items(),
                ("images", _format("{:,}", run.images)),
                ("steps", f"{run.steps:,}{total}"),
                ("epochs", _format("{:.4g}", run.epochs)),
                ("time", _time(run.seconds)),
                ("images/s", _format("{:,.0f}", run.images_per_second)),
            ]
        )
    columns = [cells for cells in zip(*rows) if any(text is not None for _, text in cells)]
    return [cells[0][0] for cells in columns], [(run, [cells[i][1] for cells in columns]) for i, run in enumerate(runs)]


def _results(run: Run, runs: Sequence[Run]) -> dict[str, str | None]:
    """Returns `{heading: text or None}` of the losses and accuracies of a run among those of its task."""
    if run.task == "pretrain":
        figures = {"k-NN (random)": _probe(run, "knn_top1"), "linear probe (random)": _probe(run, "linear_top1")}
        figures["validation loss"] = _format("{:.4f}", run.figure("validation_loss"))
        figures["rank of features"] = _format("{:.1f}", run.figure("feature_rank"))
    elif run.task == "finetune":
        best = [run.summary.get(f"best_{name}", run.best.get(name)) for name in ("validation_top1", "epoch")]
        best = [value if is_number(value) else None for value in best]
        figures = {
            "test top-1": _test_top1(run, runs),
            "±": _format("{:.2f}", run.standard_error),
            "averaged: test top-1": _format("{:.2f}", run.figure("test_top1_ema")),
            "best: test top-1": _format("{:.2f}", run.figure("best_test_top1")),
            "best: validation top-1": _join(_format("{:.2f}", best[0]), _format(", epoch {:g}", best[1])),
            "validation top-1": _format("{:.2f}", run.figure("validation_top1")),
            "test mAP": _format("{:.2f}", run.figure("test_map")),
            "test F1": _format("{:.2f}", run.figure("test_f1")),
            "averaged: test mAP": _format("{:.2f}", run.figure("test_map_ema")),
            "best: test mAP": _format("{:.2f}", run.figure("best_test_map")),
            "validation mAP": _format("{:.2f}", run.figure("validation_map")),
            "test mean IoU": _format("{:.2f}", run.figure("test_mean_iou")),
            "test accuracy of pixels": _format("{:.2f}", run.figure("test_pixel_accuracy")),
            "averaged: test mean IoU": _format("{:.2f}", run.figure("test_mean_iou_ema")),
            "best: test mean IoU": _format("{:.2f}", run.figure("best_test_mean_iou")),
            "validation mean IoU": _format("{:.2f}", run.figure("validation_mean_iou")),
        }
    else:
        return {}
    return {**figures, "training loss": _format("{:.4f}", run.figure("loss"))}


def _test_top1(run: Run, runs: Sequence[Run]) -> str | None:
    """Returns the test top-1, in bold where it is the highest among several runs on the same images."""
    same_images = [one.figure("test_top1") for one in runs if one.config.get("data") == run.config.get("data")]
    others = [top1 for top1 in same_images if top1 is not None]
    top1 = run.figure("test_top1")
    bold = len(others) > 1 and top1 == max(others)
    return _format(Markup("<strong>{:.2f}</strong>") if bold else "{:.2f}", top1)


def _probe(run: Run, name: str) -> str | None:
    return _join(_format("{:.2f}", run.figure(name)), _format(" ({:.2f})", run.figure(f"random_{name}")))


def _time(seconds: float | None) -> Markup | None:
    if seconds is None:
        return None
    return Markup('<span title="{:,.1f} s">{}</span>').format(seconds, duration(seconds))


def _format(pattern: str, value: float | None) -> str | None:
    return None if value is None else pattern.format(value)


def _join(text: str | None, more: str | None) -> str | None:
    return text if text is None or more is None else text + more


def _start(run: Run, runs: Sequence[Run]) -> Run | str | None:
    """Returns the run that another one was initialised from, or a text that stands for it; None if not on record."""
    path = run.config.get("pretrained")
    if not path:
        return None if path is None else "random weights"
    start = resolved(str(path))
    return next((one for one in runs if resolved(one.workdir) in (start, start.rpartition("/")[0])), str(path))


def _panels(task: str, runs: Sequence[Run]) -> list[tuple[str, Markup]]:
    """Returns `[(title, SVG), ...]` of the metrics that runs of a task have."""
    panels = []
    for metric, title in METRICS.items():
        having = [run for run in runs if run.latest(metric) is not None]
        if having:
            in_epochs = all(run.steps_per_epoch for run in having)
            units: list[Any] = [run.steps_per_epoch if in_epochs else 1.0 for run in having]
            curves: list[Any] = [Curve.of(run.metrics, metric, run.index, unit) for run, unit in zip(having, units)]
            svg = draw_svg(curves, "epoch" if in_epochs else "step", f"{task} {title}")
            panels.append((title, Markup(svg)))
    return panels


def _class_tables(runs: Sequence[Run]) -> list[tuple]:
    """Returns `[(figure, images, head, rows), ...]` of each class; runs with the same classes share a table."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        names = tuple(row["class"] for row in run.classes)
        groups.setdefault((names, run.evaluated_on, run.class_figure), []).append(run)
    tables = []
    for (names, evaluated_on, figure), chosen in groups.items():
        unit = chosen[0].class_unit
        columns = [[row[unit] for row in chosen[0].classes]]
        columns += [[_format("{:.2f}", parsed(row[figure])) for row in run.classes] for run in chosen]
        head = ["class", unit, *chosen]
        tables.append((CLASS_FIGURES.get(figure), evaluated_on, head, list(zip(names, zip(*columns)))))
    return [table for table in tables if table[3]]
