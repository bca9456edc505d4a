"""Runs as they stand on the page: each with a name and a sign of its own."""

import dataclasses
import os

from experiments.report.curves import swatch
from experiments.report.markup import tag
from experiments.report.reading import RecordedRun


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A run on the page.

    Args:
        run: the `RecordedRun`.
        name: of the run, which no other on the page has.
        place: from 0; colour and marker follow from it.
    """

    run: RecordedRun
    name: str
    place: int

    @property
    def label(self):
        """Sign and name, as a link to how the run was made."""
        return tag("a", swatch(self.place), "\N{NO-BREAK SPACE}", self.name, href=f"#run-{self.place}", class_="run")


def make_entries(runs):
    """Returns the `Entry` of each run; pretraining comes first.

    A run has the name of its folder, and of so many folders above it as it takes to tell it from others.
    """
    ordered = sorted(runs, key=lambda run: run.task == "finetune")
    parts = [os.path.abspath(run.workdir).split(os.sep) for run in ordered]
    return [Entry(run, _name(one, parts), place) for place, (run, one) in enumerate(zip(ordered, parts))]


def find_entry(entries, path):
    """Returns the entry of a workdir or of a file in one, or None."""
    places = {os.path.realpath(entry.run.workdir): entry for entry in entries}
    path = os.path.realpath(os.path.expanduser(path))
    return places.get(path) or places.get(os.path.dirname(path))


def _name(parts, all_parts):
    """Returns the shortest end of a path that no other path has."""
    lengths = range(1, len(parts))
    alike = (length for length in lengths if sum(other[-length:] == parts[-length:] for other in all_parts) == 1)
    return "/".join(parts[-next(alike, len(parts)) :])
