"""The report of a study: means and standard deviations, tables, a picture, and the place in a document for them."""

import os
import pathlib
import shutil
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.errors import UserError
from experiments.io import replacing
from experiments.studies.study import Study
from experiments.training.workdir import write_json
from experiments.types import Log

RESULTS, TABLES, PICTURE = "results.json", "results.md", "results.png"


def summary(values: Mapping[Any, float | None]) -> dict[str, Any]:
    """Returns `{values, mean, std}` of `{seed: figure}`, without the figures that are None.

    `mean` is None for no figure; `std`, that of a sample, for fewer than two.
    """
    known = {str(seed): value for seed, value in values.items() if value is not None}
    figures = list(known.values())
    return {
        "values": known,
        "mean": statistics.fmean(figures) if figures else None,
        "std": statistics.stdev(figures) if len(figures) > 1 else None,
    }


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the `summary` of the differences of two, seed by seed."""
    seeds = [seed for seed in one["values"] if seed in other["values"]]
    return summary({seed: one["values"][seed] - other["values"][seed] for seed in seeds})


def shown(figures: Mapping[str, Any], signed: bool = False) -> str:
    """Returns a `summary` as text: mean ± standard deviation."""
    if figures["mean"] is None:
        return ""
    mean = f"{figures['mean']:+.1f}" if signed else f"{figures['mean']:.1f}"
    return mean if figures["std"] is None else f"{mean} ± {figures['std']:.1f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table, the first column to the left and the others to the right; none without rows."""
    if not rows:
        return []
    line = "| {} |".format
    rule = "|---|" + "---:|" * (len(header) - 1)
    return [line(" | ".join(header)), rule, *(line(" | ".join(row)) for row in rows)]


def table_lines(study: Study, results: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the tables of a study that have rows, each followed by an empty one."""
    tables = [markdown_table(*table) for table in study.tables(results)]
    return [line for table in filter(None, tables) for line in (*table, "")] or ["No figures yet.", ""]


def write_report(study: Study, sessions: Sequence[dict[str, Any]], log: Log = print) -> None:
    """Writes `results.json`, `results.md` and `results.png` of the trials that are complete, and logs the tables.

    Args:
        study: the `Study`.
        sessions: on what each part of it ran, each as `provenance` returns it.
        log: function that takes a line for the user.
    """
    results = study.collect(lambda trial: trial.result)
    record = {"study": study.name, "seeds": list(study.seeds), **results, "sessions": sessions}
    write_json(study.root / RESULTS, record)
    lines = [*table_lines(study, results), _origin(study, sessions)]
    with replacing(study.root / TABLES) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with replacing(study.root / PICTURE) as temporary:
        study.draw(results, temporary)
    for line in lines:
        log(line)


def fill_document(document: str | os.PathLike[str], study: Study) -> None:
    """Puts tables and picture of the report of a study into a document, between the lines that are marked for them.

    The lines are `<!-- NAME: begin -->` and `<!-- NAME: end -->`, NAME that of the study. The picture is put beside
    the document as `study_NAME.png`.

    Raises:
        UserError: if the document or its marks are missing.
    """
    document = pathlib.Path(document)
    text = document.read_text(encoding="utf-8") if document.is_file() else ""
    begin, end = (f"<!-- {study.name}: {mark} -->" for mark in ("begin", "end"))
    before, _, rest = text.partition(begin)
    if end not in rest:
        raise UserError(f"{document} has no lines {begin} and {end} to put the results between.")
    picture = f"study_{study.name}.png"
    shutil.copyfile(study.root / PICTURE, document.parent / picture)
    body = f"{(study.root / TABLES).read_text(encoding='utf-8')}\n![{study.title}]({picture})"
    document.write_text(f"{before}{begin}\n\n{body}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def _origin(study: Study, sessions: Sequence[dict[str, Any]]) -> str:
    """Returns the line that tells by which command, on what and with what code the figures came."""
    commits = dict.fromkeys((s["commit"] or "unknown")[:7] + "+" * s["uncommitted_changes"] for s in sessions)
    machines = dict.fromkeys(f"{s['hardware']['cores']} cores of {s['hardware']['cpu']}" for s in sessions)
    versions = ", ".join(f"{name} {sessions[-1]['versions'].get(name)}" for name in ("keras", "tensorflow"))
    seeds = f"{len(study.seeds)} seeds, mean ± standard deviation" if len(study.seeds) > 1 else "one seed"
    return (
        f"{study.title}, in percent; {seeds}. `python -m launch.study --name={study.name} --workdir=FOLDER` at commit "
        f"{', '.join(commits)}, on {'; '.join(machines)}, with {versions}."
    )
