"""One page that compares runs, whole in itself: pictures inside, nothing from elsewhere."""

import os

from experiments.circumstances import circumstances, command_line
from experiments.errors import UserError
from experiments.io import local_path, reason, replacing
from experiments.report.course import clock
from experiments.report.entries import make_entries
from experiments.report.making import differences_section, making_section
from experiments.report.markup import Markup, join, tag
from experiments.report.reading import read_run
from experiments.report.sections import (
    augmentation_section,
    classes_section,
    curves_section,
    reconstructions_section,
)
from experiments.report.style import STYLE
from experiments.report.summary import figure, standard_error, summary_tables

EXPLANATION = (
    "Pretraining: an autoencoder of convolutions (ConvNeXt) hides most of each image, patch by patch, and learns to "
    "predict what is hidden. It needs no labels; what stays is its encoder. Fine-tuning: a classifier is trained with "
    "labels, from such an encoder or from random weights. Top-1 is the share of images whose class it gets right."
)


def write_report(workdirs, output, title=""):
    """Writes a page that compares runs.

    Runs may be under way, interrupted, or have damaged or missing files: the page says so.

    Args:
        workdirs: paths of runs; one that comes twice is shown once.
        output: path of the HTML file.
        title: of the page; empty for one that says what is compared.

    Returns:
        Lines about files that are missing or damaged.

    Raises:
        UserError: if a folder is no workdir of a run, or the file cannot be written.
    """
    output = local_path(output)
    if output.is_dir():
        raise UserError(f"--output={output} is a folder: name a file.")
    folders = {os.path.realpath(os.path.expanduser(path)): path for path in workdirs}
    entries = make_entries([read_run(path) for path in folders.values()])
    page = make_page(entries, title or _title(entries))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={output} cannot be written: {reason(error)}.") from error
    with replacing(output) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return [f"{entry.run.workdir}: {problem}" for entry in entries for problem in entry.run.problems]


def make_page(entries, title):
    """Returns the page of some `Entry`s, a whole HTML document."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    body = tag(
        "main",
        tag("h1", title),
        tag("p", _lead(entries), class_="lead"),
        tag("p", EXPLANATION),
        _problems(entries),
        tag("section", tag("h2", "The runs"), summary_tables(entries)),
        curves_section(entries),
        reconstructions_section(entries),
        classes_section(entries),
        augmentation_section(entries),
        differences_section(entries),
        making_section(entries),
        _footer(),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _title(entries):
    return entries[0].name if len(entries) == 1 else f"{len(entries)} runs compared"


def _lead(entries):
    """Returns a sentence that says what there is, and what the best of it is."""
    data = [entry.run.config.get("data") for entry in entries]
    sources = dict.fromkeys(str(one["source"]) for one in data if isinstance(one, dict) and one.get("source"))
    counts = [
        f"{count} {name}{'s' * (count > 1)}"
        for task, name in (("pretrain", "pretrained encoder"), ("finetune", "classifier"), ("", "run"))
        if (count := sum(entry.run.task == task for entry in entries))
    ]
    lead = [" and ".join(counts) + (f" on {', '.join(sources)}" if sources else "") + "."]
    tested = {entry: top1 for entry in entries if (top1 := figure(entry.run, "test_top1")) is not None}
    if tested and len(sources) == 1:
        best = max(tested, key=tested.get)
        error = f" ± {error:.2f}" if (error := standard_error(best.run)) else ""
        which = "The highest top-1" if len(tested) > 1 else "Top-1"
        lead += [f" {which} on test images: ", tag("strong", f"{tested[best]:.2f}%"), error, ", of ", best.label, "."]
    if all(entry.run.summary for entry in entries):
        lead.append(" All runs are complete." if len(entries) > 1 else " The run is complete.")
    return join(lead)


def _problems(entries):
    lines = [tag("li", entry.label, ": ", "; ".join(entry.run.problems)) for entry in entries if entry.run.problems]
    return join(tag("h3", "Files that are missing or damaged"), tag("ul", lines, class_="problems")) if lines else None


def _footer():
    facts = circumstances()
    made = f"Made {clock(facts['time'])}" + (f" at commit {facts['commit']}" if facts["commit"] else "")
    command = command_line()
    return tag("footer", tag("p", f"{made}."), tag("pre", command) if command else None)
