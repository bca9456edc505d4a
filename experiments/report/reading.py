"""Reads what runs have left in their workdirs, whatever state that is in."""

import csv
import dataclasses
import json
import pathlib

from experiments.errors import UserError
from experiments.io import local_path
from experiments.report.pictures import DamagedPicture, Picture, read_picture
from experiments.training.segments import ENVIRONMENT
from experiments.training.tracking import METRICS, parse_metrics
from experiments.training.validation import BEST_RECORD
from experiments.training.workdir import CONFIG, SUMMARY

MARKS = (CONFIG, METRICS, SUMMARY)  # a folder that has none of these is no run
MOST_RECONSTRUCTIONS = 6
CLASS_COLUMNS = ("class", "images", "correct", "predicted", "top1", "precision", "f1")
TASKS = ("pretrain", "finetune")


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """What is known of a run.

    Args:
        workdir: of the run.
        task: `pretrain`, `finetune`, or empty where that is not known.
        config: the configuration, nested mappings; empty where it is not known.
        summary: the figures at the end; empty for a run that is not complete.
        best: what `best.json` holds.
        metrics: the lines of metrics, each a mapping with an integer `step`.
        segments: those of `environment.json`, mappings.
        evaluated_on: `test` or `validation`: the images of `classes` and `confusion`.
        classes: rows of the table of classes, mappings from `CLASS_COLUMNS` to text.
        confusion: picture of which classes are taken for which, or None.
        augmentation: picture of what training sees, or None.
        reconstructions: `[(step, Picture), ...]`, the first, the last and some between.
        problems: lines about files that are missing or damaged.
    """

    workdir: pathlib.Path
    task: str
    config: dict
    summary: dict
    best: dict
    metrics: list
    segments: list
    evaluated_on: str
    classes: list
    confusion: Picture | None
    augmentation: Picture | None
    reconstructions: list
    problems: tuple

    @property
    def training(self):
        """The section of the configuration that the run worked by; empty where it is not known."""
        section = self.config.get(self.task)
        return section if isinstance(section, dict) else {}

    def latest(self, name):
        """Returns the newest value of a metric, or None."""
        return next((line[name] for line in reversed(self.metrics) if name in line), None)


def read_run(path):
    """Returns the `RecordedRun` of a workdir.

    Raises:
        UserError: if it is no workdir of a run.
    """
    workdir = local_path(path)
    _check_is_run(workdir)
    reader = _Reader(workdir)
    recorded = reader.mapping(CONFIG, expected=True)
    summary = reader.mapping(SUMMARY)
    metrics = reader.metrics()
    config = recorded.get("config", {})
    task = next((task for task in (recorded.get("task"), summary.get("task")) if task in TASKS), "")
    segments = reader.mapping(ENVIRONMENT, expected=True, without="command, hardware and versions are not known").get(
        "segments", []
    )
    evaluated_on = "validation" if (workdir / "report_validation.csv").exists() else "test"
    evaluated = task == "finetune" and any(f"{name}_top1" in summary for name in ("test", "validation"))
    return RecordedRun(
        workdir=workdir,
        task=task,
        config=config if isinstance(config, dict) else {},
        summary=summary,
        best=reader.mapping(BEST_RECORD),
        metrics=metrics,
        segments=[one for one in segments if isinstance(one, dict)] if isinstance(segments, list) else [],
        evaluated_on=evaluated_on,
        classes=reader.classes(f"report_{evaluated_on}.csv", expected=evaluated),
        confusion=reader.picture(f"confusion_{evaluated_on}.png", expected=evaluated),
        augmentation=reader.picture("augmentation.png", expected=evaluated),
        reconstructions=reader.reconstructions(expected=task == "pretrain" and bool(summary)),
        problems=tuple(reader.problems),
    )


def _check_is_run(workdir):
    if not workdir.is_dir():
        raise UserError(f"There is no folder {workdir}." if not workdir.exists() else f"{workdir} is no folder.")
    if any((workdir / name).exists() for name in MARKS):
        return
    below = sorted(folder for folder in workdir.iterdir() if any((folder / name).exists() for name in MARKS))
    hint = f" There are runs below it: {' '.join(map(str, below[:5]))}" if below else ""
    raise UserError(f"{workdir} is no workdir of a run: it has neither {', '.join(MARKS[:-1])} nor {SUMMARY}.{hint}")


class _Reader:
    """Reads the files of a workdir, and takes down what is wrong with them."""

    def __init__(self, workdir):
        self._workdir = workdir
        self.problems = []

    def mapping(self, name, expected=False, without=""):
        """Returns the content of a JSON file, empty where there is none that can be used.

        Args:
            name: of the file.
            expected: whether it is a problem if there is none.
            without: what that means.
        """
        text = self._text(name, expected, without)
        if text is None:
            return {}
        try:
            content = json.loads(text)
            if isinstance(content, dict):
                return content
            reason = "it holds no mapping"
        except (ValueError, RecursionError) as error:
            reason = error
        self.problems.append(f"{name} is damaged ({reason})")
        return {}

    def metrics(self):
        """Returns the lines of metrics that can be read."""
        content = self._content(METRICS, expected=True)
        lines, damaged = parse_metrics(content or b"")
        if damaged:
            self.problems.append(f"{METRICS}: {damaged} of {len(lines) + damaged} lines cannot be read")
        return lines

    def classes(self, name, expected):
        """Returns the rows of a table of classes."""
        text = self._text(name, expected)
        if text is None:
            return []
        try:
            rows = list(csv.DictReader(text.splitlines()))
        except csv.Error:
            rows = []
        whole = [row for row in rows if None not in row.values() and set(CLASS_COLUMNS) <= row.keys()]
        if len(whole) < len(rows) or not rows:
            self.problems.append(f"{name} is damaged ({len(whole)} rows of {len(rows)} can be read)")
        return whole

    def picture(self, name, expected=False):
        """Returns a picture, or None."""
        path = self._workdir / name
        if not path.exists():
            if expected:
                self.problems.append(f"{name} is missing")
            return None
        try:
            return read_picture(path)
        except DamagedPicture as error:
            self.problems.append(f"{name} is damaged ({error})")
            return None

    def reconstructions(self, expected):
        """Returns `[(step, Picture), ...]`: the first, the last, and some between."""
        found = sorted(self._workdir.glob("reconstructions/step_*.png"))
        pictures = [(path, self.picture(f"reconstructions/{path.name}")) for path in _spread(found)]
        if expected and not found:
            self.problems.append("reconstructions/ holds no pictures")
        return [(_step_of(path), picture) for path, picture in pictures if picture]

    def _text(self, name, expected, without=""):
        content = self._content(name, expected, without)
        try:
            return None if content is None else content.decode("utf-8")
        except UnicodeDecodeError as error:
            self.problems.append(f"{name} cannot be read ({error})")
            return None

    def _content(self, name, expected, without=""):
        try:
            return (self._workdir / name).read_bytes()
        except FileNotFoundError:
            if expected:
                self.problems.append(f"{name} is missing" + (f": {without}" if without else ""))
        except OSError as error:
            self.problems.append(f"{name} cannot be read ({error})")
        return None


def _spread(paths):
    """Returns the first, the last and evenly spaced ones between, `MOST_RECONSTRUCTIONS` at most."""
    count = min(len(paths), MOST_RECONSTRUCTIONS)
    return [paths[round(i * (len(paths) - 1) / max(count - 1, 1))] for i in range(count)]


def _step_of(path):
    digits = path.stem.removeprefix("step_")
    return int(digits) if digits.isdecimal() else None
