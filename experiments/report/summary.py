"""The table of all runs: how far they are, what they cost and what came of them."""

import dataclasses
import math
import typing

from experiments.report.course import (
    duration,
    epochs_done,
    images_per_second,
    num_images,
    number,
    seconds_taken,
    state,
    steps_done,
    total_steps,
)
from experiments.report.differences import NOT_RECORDED, differing_fields
from experiments.report.entries import find_entry
from experiments.report.markup import fold, join, table, tag

TITLES = {
    "pretrain": "Pretraining, without labels",
    "finetune": "Fine-tuning, with labels",
    "": "Runs of an unknown kind",
}
MOST_FIELDS = 5  # differing fields up to which each has a column


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the table.

    Args:
        heading: of the column.
        meaning: what it says, for a reader who never saw the project; empty where the heading does.
        value: function of an `Entry`; None for an empty cell.
        write: function from a value to the content of its cell.
        highest_is_best: whether the highest value is marked among several.
    """

    heading: str
    meaning: str
    value: typing.Callable
    write: typing.Callable = str
    highest_is_best: bool = False


def summary_tables(entries):
    """Returns a table for each kind of run there is, and what its columns mean."""
    parts = []
    for task, title in TITLES.items():
        chosen = [entry for entry in entries if entry.run.task == task]
        if chosen:
            parts += [tag("h3", title), _table(chosen, _columns(task, entries, chosen))]
    return join(parts)


def standard_error(run):
    """Returns the standard error of the test top-1 in points, from the number of images alone; None if unknown."""
    top1 = number(run.summary.get("test_top1"))
    if top1 is None or run.evaluated_on != "test":
        return None
    images = sum(int(row["images"]) for row in run.classes if row["images"].isdecimal())
    return math.sqrt(max(top1 * (100.0 - top1), 0.0) / images) if images else None


def figure(run, name):
    """Returns a figure at the end of a run, or the newest of one that is not complete; None where there is none."""
    return number(run.summary.get(name, run.latest(name)))


def _table(entries, columns):
    columns = [column for column in columns if any(column.value(entry) is not None for entry in entries)]
    rows = [[entry.label, *(_cell(column, entry, entries) for column in columns)] for entry in entries]
    meanings = [tag("li", tag("b", column.heading), f": {column.meaning}") for column in columns if column.meaning]
    return join(
        table(["run", *(column.heading for column in columns)], rows, class_="figures"),
        fold("What the columns say", tag("ul", meanings), class_="meanings"),
    )


def _cell(column, entry, entries):
    value = column.value(entry)
    if value is None:
        return tag("td", "–", class_="none")
    content = column.write(value)
    others = [other for one in entries if (other := column.value(one)) is not None and _same_images(one, entry)]
    best = column.highest_is_best and len(others) > 1 and value == max(others)
    return tag("td", tag("strong", content) if best else content)


def _same_images(one, other):
    return one.run.config.get("data") == other.run.config.get("data")


def _columns(task, entries, chosen):
    """Returns the columns for runs of a task: how they stand, what differs, what came of them, what they cost."""
    came_of_it = {"pretrain": _pretraining_figures, "finetune": _classifier_figures, "": lambda: []}[task]()
    return [
        *([] if all(entry.run.summary for entry in entries) else [Column("state", "", lambda entry: state(entry.run))]),
        *([_starts_from(entries)] if task == "finetune" else []),
        *_fields_that_differ(chosen),
        *came_of_it,
        Column("images", "number of different training images", lambda entry: num_images(entry.run), _count),
        Column("steps", "updates of the weights, of all that are planned", lambda entry: entry.run, _steps),
        Column("epochs", "passes over the training images", lambda entry: epochs_done(entry.run), "{:.4g}".format),
        Column("time", "of training", lambda entry: seconds_taken(entry.run), _time),
        Column("images/s", "in training, the median", lambda entry: images_per_second(entry.run), "{:,.0f}".format),
    ]


def _pretraining_figures():
    methods = {
        "k-NN": ("knn_top1", "the nearest neighbours"),
        "linear probe": ("linear_top1", "a linear classifier"),
    }
    probes = [
        Column(
            f"{name} (random)",
            f"top-1 on the validation images, %, of {method} on the features of the encoder, which stays as it is; in "
            "brackets the same of an encoder with random weights",
            lambda entry, key=key: _with_random(entry.run, key),
        )
        for name, (key, method) in methods.items()
    ]
    compare = "losses of runs that hide other shares of the patches do not compare"
    loss = f"mean squared error on hidden patches of images that are not trained on; {compare}"
    return [
        *probes,
        _figure("validation loss", "validation_loss", loss, "{:.4f}"),
        _figure("training loss", "loss", "the same on training images, by the last line of metrics", "{:.4f}"),
    ]


def _classifier_figures():
    return [
        Column(
            "test top-1",
            "share of the test images that are classified right, %; on these nothing is chosen. Bold is the highest of "
            "runs on the same images",
            lambda entry: figure(entry.run, "test_top1"),
            "{:.2f}".format,
            highest_is_best=True,
        ),
        Column(
            "±",
            "one standard error of the test top-1, from the number of images alone",
            lambda entry: standard_error(entry.run),
            "{:.2f}".format,
        ),
        _figure("averaged: test top-1", "test_top1_ema", "of the moving average of the weights"),
        _figure("best: test top-1", "best_test_top1", "of the weights that were best on the validation images"),
        Column("best: validation top-1", "what they had there, and when", lambda entry: _best(entry.run)),
        _figure("validation top-1", "validation_top1", "of the weights at the end, %"),
        _figure("training loss", "loss", "cross-entropy, by the last line of metrics", "{:.4f}"),
    ]


def _figure(heading, name, meaning, form="{:.2f}"):
    return Column(heading, meaning, lambda entry: figure(entry.run, name), form.format)


def _fields_that_differ(entries):
    """Returns a column for each field of the configuration in which runs of one task differ, if they are few."""
    differing = differing_fields([entry.run for entry in entries])
    differing.pop("pretrained", None)  # has a column of its own
    if len(differing) > MOST_FIELDS:
        return [Column("fields that differ", "see the configurations below", lambda entry: len(differing))]
    by_entry = {name: dict(zip(entries, values)) for name, values in differing.items()}
    return [Column(name, "", lambda entry, name=name: written(by_entry[name][entry])) for name in differing]


def written(value):
    """Returns a value of the configuration as it would be typed; None where it is not on record."""
    if value is NOT_RECORDED:
        return None
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value) or "none"


def _starts_from(entries):
    def start(entry):
        path = entry.run.config.get("pretrained")
        if path is None:
            return None
        found = find_entry(entries, str(path)) if path else None
        return found.label if found else str(path) or "random weights"

    return Column("starts from", "", start, lambda content: content)


def _steps(run):
    done, total = steps_done(run), total_steps(run)
    return f"{done:,}" if total in (done, None) else f"{done:,} of {total:,}"


def _count(value):
    return f"{value:,}" if type(value) is int else str(value)


def _time(seconds):
    return tag("span", duration(seconds), title=f"{seconds:,.1f} s")


def _with_random(run, key):
    value, random = figure(run, key), figure(run, f"random_{key}")
    if value is None:
        return None
    return f"{value:.2f}" + (f" ({random:.2f})" if random is not None else "")


def _best(run):
    known = {**run.best, **{key.removeprefix("best_"): run.summary[key] for key in run.summary if key[:5] == "best_"}}
    top1, epoch = number(known.get("validation_top1")), number(known.get("epoch"))
    if top1 is None:
        return None
    return f"{top1:.2f}" + (f", epoch {epoch:g}" if epoch is not None else "")
