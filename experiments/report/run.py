"""What is known of a run: its state, progress and figures."""

import dataclasses
import datetime
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from experiments.report.figures import Picture
from experiments.training.loggers import is_number
from experiments.training.workdir import flatten

TASKS = ("pretrain", "finetune")
# A table of classes has one of them, and one of the units.
CLASS_FIGURES = {"top1": "top-1", "average_precision": "average precision", "iou": "IoU"}
CLASS_UNITS = ("images", "pixels")


@dataclasses.dataclass(eq=False)
class Run:
    """What is known of a run; a file that is missing or damaged leaves its field empty."""

    workdir: pathlib.Path
    task: str  # "pretrain", "finetune", or "" where that is unknown
    config: dict  # the configuration, nested
    summary: dict  # the figures at the end; empty for a run that is not complete
    best: dict  # content of `best.json`
    metrics: list  # lines of metrics, `{name: number}` with an integer `step`
    provenance: list  # of each start: command, times, steps, hardware, versions, commit
    evaluated_on: str  # "test" or "validation": the images of `classes` and `confusion`
    classes: list  # rows of the table of classes, `{column: text}` with `CLASS_COLUMNS` and one of `CLASS_UNITS`
    confusion: Picture | None
    augmentation: Picture | None
    reconstructions: list  # `(step or None, Picture)`: the first, the last and some between
    segmentations: list  # the same of pictures of masks
    problems: list  # lines about missing and damaged files
    index: int = 0  # on the page; colour and marker follow from it
    name: str = ""  # the end of the path that no other run on the page has

    def latest(self, metric: str) -> Any:
        """Returns the newest value of a metric, or None."""
        return next((line[metric] for line in reversed(self.metrics) if metric in line), None)

    @property
    def class_figure(self) -> str:
        """Name of the column of `classes` that says how well each is recognised; empty without classes."""
        return next((name for name in CLASS_FIGURES if self.classes and name in self.classes[0]), "")

    def figure(self, name: str) -> float | None:
        """Returns a number from the summary, or the newest such metric of a run that has none; None without either."""
        value = self.summary.get(name, self.latest(name))
        return value if is_number(value) else None

    @property
    def is_segmentation(self) -> bool:
        section = self.config.get("finetune")
        return self.task == "finetune" and isinstance(section, dict) and section.get("task") == "segmentation"

    @property
    def class_unit(self) -> str:
        """What `classes` counts, one of `CLASS_UNITS`."""
        return next((name for name in CLASS_UNITS if self.classes and name in self.classes[0]), CLASS_UNITS[0])

    @property
    def standard_error(self) -> float | None:
        """Standard error of the test top-1 in points, from the number of images alone; None if unknown."""
        top1 = self.figure("test_top1")
        if top1 is None or self.evaluated_on != "test" or self.class_unit != "images":
            return None
        images = sum(number for row in self.classes if (number := parsed(row["images"])) is not None)
        if images <= 0:
            return None
        return math.sqrt(max(top1 * (100.0 - top1), 0.0) / images)

    @property
    def steps(self) -> int:
        """Number of steps on record."""
        last = self.provenance[-1].get("to_step") if self.provenance else None
        return max(filter(_is_count, (self.summary.get("steps"), self.latest("step"), last)), default=0)

    @property
    def total_steps(self) -> int | None:
        """Number of steps of the whole run, or None if unknown."""
        known = (self.summary.get("steps"), *(one.get("total_steps") for one in reversed(self.provenance)))
        return next(filter(_is_count, known), None)

    @property
    def steps_per_epoch(self) -> float | None:
        """Number of steps of an epoch, a float, or None if unknown."""
        ratios = (line["step"] / line["epoch"] for line in self.metrics if line.get("epoch", 0) > 0)
        return next((ratio for ratio in ratios if ratio > 0 and math.isfinite(ratio)), None)

    @property
    def epochs(self) -> float | None:
        """Number of epochs on record, a float, or None if unknown."""
        return self.steps / self.steps_per_epoch if self.steps_per_epoch else None

    @property
    def images(self) -> int | None:
        """Number of training images, or None if unknown."""
        known = (self.summary, *reversed(self.provenance))
        return next((one["images"] for one in known if _is_count(one.get("images"))), None)

    @property
    def images_per_second(self) -> float | None:
        """Median over the lines of metrics, or None."""
        rates = [line["images_per_second"] for line in self.metrics if "images_per_second" in line]
        return statistics.median(rates) if rates else None

    @property
    def seconds(self) -> float | None:
        """Seconds that the run took, all its starts together, or None if not all are on record."""
        if not self.provenance:
            seconds = self.figure("seconds")
            return seconds if seconds is not None and math.isfinite(seconds) else None
        spans: list[Any] = [seconds_between(one) for one in self.provenance]
        return sum(spans) if self.provenance[0].get("from_step") == 0 and None not in spans else None

    @property
    def state(self) -> str:
        """How the run stands, in words."""
        if self.summary:
            return "complete"
        last = self.provenance[-1] if self.provenance else {}
        at = f"step {self.steps:,}" + (f" of {self.total_steps:,}" if self.total_steps else "")
        if self.total_steps and self.steps >= self.total_steps:
            return f"{at} is done, but its final evaluation is missing"
        if last.get("ended"):
            return f"stopped at {at}"
        seen = f", last seen {clock(last.get('last_seen'))}" if clock(last.get("last_seen")) else ""
        return f"running or killed at {at}{seen}"


def differing_fields(runs: Sequence[Run]) -> dict[str, list[str | None]]:
    """Returns the fields in which the configurations of runs differ.

    A field that a run does not use, such as `finetune.epochs` in pretraining, is not a difference, nor is one that it
    does not have because the field is newer than the run.

    Returns:
        `{dotted name: [text for each run]}`, in the order of the configuration. The text is None where the field is not
        on record, and empty where it is not used.
    """
    configs = [flatten(run.config) for run in runs]
    differing = {}
    for name in dict.fromkeys(name for config in configs for name in config):
        section = name.partition(".")[0]
        used = [section not in TASKS or section == run.task for run in runs]
        values = [config[name] for config, uses in zip(configs, used) if uses and name in config]
        if any(value != values[0] for value in values):
            texts = [_as_typed(config[name]) if name in config else None for config in configs]
            differing[name] = [text if uses else "" for text, uses in zip(texts, used)]
    return differing


def seconds_between(start: Mapping[str, Any]) -> float | None:
    """Returns the seconds between a start of a run and its end, or when it was last seen; None if unknown."""
    begin, end = _time(start.get("started")), _time(start.get("ended")) or _time(start.get("last_seen"))
    return (end - begin).total_seconds() if begin and end else None


def clock(text: Any) -> str:
    """Returns a recorded time for a reader, in UTC and to the minute; empty if it is none."""
    time = _time(text)
    return time.strftime("%Y-%m-%d %H:%M UTC") if time else ""


def parsed(text: str) -> float | None:
    """Returns the number that a text holds, or None if it holds no finite one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and is_number(value) and value >= 0


def _time(text: Any) -> datetime.datetime | None:
    try:
        time = datetime.datetime.fromisoformat(text)
        return time.astimezone(datetime.UTC) if time.tzinfo else None
    except (TypeError, ValueError, OverflowError):
        return None


def _as_typed(value: Any) -> str:
    return (", ".join(map(str, value)) if isinstance(value, list) else str(value)) or "none"
