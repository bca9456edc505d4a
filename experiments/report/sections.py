"""What runs did and saw: curves, reconstructions, augmentation, and classes one by one."""

import numpy as np

from experiments.report.course import steps_of_an_epoch
from experiments.report.curves import Curve, draw_curves
from experiments.report.markup import fold, join, table, tag
from experiments.report.reading import CLASS_COLUMNS
from experiments.report.summary import TITLES
from experiments.training.pictures import CURVES, RANDOM_ENCODER

MOST_CLASSES = 30  # up to which the table of classes is open


def curves_section(entries):
    """Returns the curves of all metrics, those of one metric in a figure; None where nothing is on record."""
    parts = []
    for task, title in TITLES.items():
        chosen = [entry for entry in entries if entry.run.task == task]
        panels = [_panel(chosen, metric, f"{task} {label}", label) for metric, label in CURVES.items()]
        panels = [panel for panel in panels if panel]
        if panels:
            legend = tag("p", [tag("span", entry.label) for entry in chosen], class_="legend")
            parts += [tag("h3", title), legend, tag("div", panels, class_="panels")]
    if not parts:
        return None
    note = "Dotted level lines: the same of an encoder with random weights. " if _has_random(entries) else ""
    return _section(
        "Curves", tag("p", note, "Long curves show means of neighbouring lines of metrics.", class_="note"), parts
    )


def reconstructions_section(entries):
    """Returns what the autoencoders make of hidden patches as time goes on; None without pictures."""
    shown = [entry for entry in entries if entry.run.reconstructions]
    if not shown:
        return None
    return _section(
        "Reconstructions over time",
        tag(
            "p",
            "Images of the validation, or of the training where there is none: the original, what the encoder sees "
            "(hidden patches are grey), and what the decoder makes of it, with visible patches pasted in. A model that "
            "learns normalized patches predicts structure alone: brightness and contrast of hidden patches are then "
            "those of the original.",
        ),
        tag("div", [_reconstructions(entry) for entry in shown], class_="pair" if len(shown) > 1 else None),
    )


def classes_section(entries):
    """Returns what classifiers get right and wrong class by class; None where nothing is on record."""
    shown = [entry for entry in entries if entry.run.classes or entry.run.confusion]
    if not shown:
        return None
    groups = {}
    for entry in shown:
        if entry.run.classes:
            names = tuple(row["class"] for row in entry.run.classes)
            groups.setdefault((names, entry.run.evaluated_on), []).append(entry)
    tables = [_top1_by_class(chosen, *group) for group, chosen in groups.items()]
    return _section("Classes", tables, tag("div", [_confusion(entry) for entry in shown], class_="pair"))


def augmentation_section(entries):
    """Returns what training sees of the images; None without pictures."""
    shown = [entry for entry in entries if entry.run.augmentation]
    if not shown:
        return None
    pictures = [
        fold(
            entry.label,
            tag("figure", entry.run.augmentation.element(f"images as training sees them in {entry.name}")),
            open="" if entry is shown[0] else None,
        )
        for entry in shown
    ]
    note = "Each row is an image: as evaluation sees it, then as training does in some epochs."
    return _section("Augmentation", tag("p", note), pictures)


def _section(title, *content):
    return tag("section", tag("h2", title), *content)


def _has_random(entries):
    return any(entry.run.latest(key) is not None for entry in entries for key in RANDOM_ENCODER.values())


def _panel(entries, metric, name, label):
    """Returns the figure of one metric; None if no run has it."""
    having = [entry for entry in entries if entry.run.latest(metric) is not None]
    if not having:
        return None
    in_epochs = all(steps_of_an_epoch(entry.run) for entry in having)
    curves = [_curve(entry, metric, in_epochs) for entry in having]
    picture = draw_curves(curves, "epoch" if in_epochs else "step", name)
    return tag("figure", tag("figcaption", label), picture)


def _curve(entry, metric, in_epochs):
    points = [(line["step"], line[metric]) for line in entry.run.metrics if metric in line]
    x, y = np.array(sorted(points), np.float64).T
    if in_epochs:
        x = x / steps_of_an_epoch(entry.run)
    return Curve(entry.place, x, y, entry.run.latest(RANDOM_ENCODER.get(metric)))


def _reconstructions(entry):
    *before, last = entry.run.reconstructions
    return tag(
        "div",
        tag("h3", entry.label),
        _reconstruction(entry, *last),
        tag("div", [_reconstruction(entry, *one) for one in before], class_="pictures"),
    )


def _reconstruction(entry, step, picture):
    when = _when(entry, step)
    return tag("figure", picture.element(f"reconstructions of {entry.name}, {when}"), tag("figcaption", when))


def _when(entry, step):
    if step is None:
        return "step unknown"
    per_epoch = steps_of_an_epoch(entry.run)
    return f"step {step:,}" + (f", epoch {step / per_epoch:.3g}" if per_epoch else "")


def _top1_by_class(entries, names, evaluated_on):
    """Returns the top-1 of each class, a column for each run."""
    first = entries[0].run.classes
    rows = [
        [name, first[i]["images"], *(_percent(entry.run.classes[i]["top1"]) for entry in entries)]
        for i, name in enumerate(names)
    ]
    made = table(["class", "images", *(entry.label for entry in entries)], rows, class_="figures")
    title = f"Top-1 of each class on the {evaluated_on} images, %"
    return join(tag("h3", title), made) if len(names) <= MOST_CLASSES else fold(title, made)


def _confusion(entry):
    run = entry.run
    rows = [
        [*(row[name] for name in CLASS_COLUMNS[:4]), *(_percent(row[name]) for name in CLASS_COLUMNS[4:])]
        for row in run.classes
    ]
    return tag(
        "div",
        tag("h3", entry.label),
        tag("figure", run.confusion.element(f"confusion matrix of {entry.name}")) if run.confusion else None,
        fold("Precision and F1 of each class", table(CLASS_COLUMNS, rows, class_="figures")) if rows else None,
    )


def _percent(text):
    """Returns a figure of a table of classes with two decimals; a dash where it is none."""
    try:
        return f"{float(text):.2f}"
    except ValueError:
        return "–"
