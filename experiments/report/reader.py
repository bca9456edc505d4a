"""Reads the files of a run, complete or not."""

import csv
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from experiments.errors import UserError
from experiments.io import FAULTS, as_path, is_url, reason
from experiments.report.figures import Picture
from experiments.report.run import CLASS_FIGURES, CLASS_UNITS, TASKS, Run
from experiments.training.callbacks import ENVIRONMENT
from experiments.training.loggers import METRICS, parse_metrics
from experiments.training.validation import BEST_RECORD
from experiments.training.workdir import CONFIG, PICTURES, SEGMENTATIONS, SUMMARY
from experiments.types import Path

RUN_FILES = (CONFIG, METRICS, SUMMARY)  # a folder that has none of these is not a workdir
CLASS_COLUMNS = ("class", "correct", "predicted", "precision", "f1")
MAX_PICTURES = 6  # of those drawn over a run
MAX_DEPTH = 50  # of nested JSON: a run writes four levels


def read_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Returns the `Run`s of some workdirs, pretraining first; one that is named twice comes once.

    Args:
        paths: local paths and URLs.

    Raises:
        UserError: if one is not the workdir of a run.
    """
    runs = [_read_run(as_path(path)) for path in {resolved(path): path for path in paths}.values()]
    runs.sort(key=lambda run: run.task == "finetune")
    parts = [(str(run.workdir) if is_url(run.workdir) else os.path.abspath(run.workdir)).split("/") for run in runs]
    for index, (run, own) in enumerate(zip(runs, parts)):
        unique = (n for n in range(1, len(own)) if sum(other[-n:] == own[-n:] for other in parts) == 1)
        run.index, run.name = index, "/".join(own[-next(unique, len(own)) :])
    return runs


def resolved(path: str | Path) -> str:
    """Returns a path as text by which two that lead to the same place compare equal."""
    try:
        return str(path).rstrip("/") if is_url(path) else os.path.realpath(os.path.expanduser(path))
    except ValueError:  # a configuration may hold any text, and a path no NUL
        return str(path)


def _read_run(workdir: Path) -> Run:
    _check_is_run(workdir)
    reader = _Reader(workdir)
    recorded, summary = reader.read(CONFIG, _parse_mapping, {}, expected=True), reader.read(SUMMARY, _parse_mapping, {})
    task = next((task for task in (recorded.get("task"), summary.get("task")) if task in TASKS), "")
    config, starts = recorded.get("config"), reader.read(ENVIRONMENT, _parse_mapping, {}, expected=True).get("segments")
    evaluated_on = "validation" if (workdir / "report_validation.csv").exists() else "test"
    metrics = ("top1", "map", "mean_iou")
    figures = [metric for metric in metrics for name in ("test", "validation") if f"{name}_{metric}" in summary]
    evaluated = task == "finetune" and bool(figures)
    return Run(
        workdir=workdir,
        task=task,
        config=config if isinstance(config, dict) else {},
        summary=summary,
        best=reader.read(BEST_RECORD, _parse_mapping, {}),
        metrics=reader.read_lines(METRICS, parse_metrics, expected=True),
        provenance=[one for one in starts if isinstance(one, dict)] if isinstance(starts, list) else [],
        evaluated_on=evaluated_on,
        classes=reader.read_lines(f"report_{evaluated_on}.csv", _parse_classes, expected=evaluated),
        confusion=reader.read(
            f"confusion_{evaluated_on}.png", Picture.decode, expected=evaluated and "map" not in figures
        ),
        augmentation=reader.read("augmentation.png", Picture.decode, expected=evaluated and "mean_iou" not in figures),
        reconstructions=reader.read_pictures(PICTURES, expected=task == "pretrain" and bool(summary)),
        segmentations=reader.read_pictures(SEGMENTATIONS, expected=False),
        problems=reader.problems,
    )


def _check_is_run(workdir: Path) -> None:
    try:
        if not workdir.is_dir():
            raise UserError(f"{workdir} is not a folder." if workdir.exists() else f"There is no folder {workdir}.")
        if _holds_run(workdir):
            return
        below = [folder for folder in sorted(workdir.iterdir()) if _holds_run(folder)]
    except FAULTS as error:
        raise UserError(f"{workdir} cannot be read: {reason(error)}.") from error
    hint = f" There are runs below it: {' '.join(map(str, below[:5]))}" if below else ""
    raise UserError(f"{workdir} is not the workdir of a run: it has no {', '.join(RUN_FILES[:-1])} or {SUMMARY}.{hint}")


def _holds_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in RUN_FILES)


class _Reader:
    """Reads the files of a workdir, and collects what is wrong with them in `problems`."""

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self.problems: list[str] = []

    def read(self, name: str, parse: Callable[[bytes], Any], default: Any = None, expected: bool = False) -> Any:
        """Returns what `parse` makes of the bytes of a file; the default where it is missing or damaged.

        That a file is missing is a problem only where it is `expected`.
        """
        try:
            path = self._workdir / name
            if path.exists():
                return parse(path.read_bytes())
            if expected:
                self.problems.append(f"{name} is missing")
        except (ValueError, RecursionError, csv.Error) as error:
            self.problems.append(f"{name} is damaged ({error})")
        except FAULTS as error:
            self.problems.append(f"{name} cannot be read ({reason(error)})")
        return default

    def read_lines(self, name: str, parse: Callable[[bytes], tuple[list, int]], expected: bool) -> list[dict[str, Any]]:
        """Returns the whole lines of a file, of which `parse` gives `(lines, number of damaged ones)`."""
        lines, damaged = self.read(name, parse, ([], 0), expected)
        if damaged:
            self.problems.append(f"{name} is damaged ({damaged} of {len(lines) + damaged} lines cannot be read)")
        return lines

    def read_pictures(self, folder: str, expected: bool) -> list[tuple[int | None, Picture]]:
        """Returns `[(step or None, Picture), ...]`: the first, the last, and some between."""
        try:
            names = sorted(path.name for path in (self._workdir / folder).glob("step_*.png"))
        except FAULTS:
            names = []
        if expected and not names:
            self.problems.append(f"{folder}/ holds no pictures")
        count = min(len(names), MAX_PICTURES)
        spread = [names[round(i * (len(names) - 1) / max(count - 1, 1))] for i in range(count)]
        pictures = [(name[5:-4], self.read(f"{folder}/{name}", Picture.decode)) for name in spread]
        return [(int(step) if step.isdecimal() else None, picture) for step, picture in pictures if picture]


def _parse_mapping(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError("it is not a mapping")
    if _depth(value) > MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    return value


def _parse_classes(content: bytes) -> tuple[list[dict], int]:
    rows = list(csv.DictReader(content.decode().splitlines()))
    if not rows:
        raise ValueError("it holds no rows")
    one_each = [next((name for name in names if name in rows[0]), "") for names in (CLASS_FIGURES, CLASS_UNITS)]
    needed = {*CLASS_COLUMNS, *one_each}
    whole = [row for row in rows if None not in row.values() and needed <= row.keys()]
    return whole, len(rows) - len(whole)


def _depth(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, children), default=0)
