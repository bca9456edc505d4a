"""The report of a study: its figures, its tables, its picture; and the place in a document that shows them."""

import pathlib
import shutil

from experiments.errors import UserError
from experiments.io import replacing
from experiments.training.workdir import write_json

RESULTS, TABLES, PICTURE = "results.json", "results.md", "results.png"


def write_report(study, sessions, log=print):
    """Writes the report of a study into its folder, of the trials that are complete.

    Args:
        study: the `Study`.
        sessions: on what each part of it ran, each as `provenance` returns it.
        log: function that takes a line for the user.

    Returns:
        The paths of `results.json`, `results.md` and `results.png`.
    """
    results = study.results()
    paths = [study.root / name for name in (RESULTS, TABLES, PICTURE)]
    write_json(paths[0], {"study": study.name, "seeds": list(study.seeds), **results, "sessions": sessions})
    lines = [*study.tables(results), "", *_origin(study, sessions)]
    with replacing(paths[1]) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with replacing(paths[2]) as temporary:
        study.draw(results, temporary)
    for line in lines:
        log(line)
    return paths


def fill_document(document, study, paths):
    """Puts tables and picture of a report into a document, between the lines that are marked for them.

    The lines are `<!-- NAME: begin -->` and `<!-- NAME: end -->`, NAME that of the study. The picture is put beside
    the document as `study_NAME.png`.

    Args:
        document: path of a Markdown file.
        study: the `Study`.
        paths: what `write_report` returned.

    Raises:
        UserError: if the document or its marks are missing.
    """
    document = pathlib.Path(document)
    text = document.read_text(encoding="utf-8") if document.is_file() else ""
    begin, end = (f"<!-- {study.name}: {mark} -->" for mark in ("begin", "end"))
    if begin not in text or end not in text.partition(begin)[2]:
        raise UserError(f"{document} has no lines {begin} and {end} to put the results between.")
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    picture = f"study_{study.name}.png"
    shutil.copyfile(paths[2], document.parent / picture)
    body = f"{paths[1].read_text(encoding='utf-8')}\n![{study.title}]({picture})"
    document.write_text(f"{before}{begin}\n\n{body}\n\n{end}{after}", encoding="utf-8")


def _origin(study, sessions):
    """Returns the lines that say by which command, on what and with what code the figures came."""
    commits = dict.fromkeys((s["commit"] or "unknown")[:7] + "+" * s["uncommitted_changes"] for s in sessions)
    machines = dict.fromkeys(f"{s['hardware']['cores']} cores of {s['hardware']['cpu']}" for s in sessions)
    versions = ", ".join(f"{name} {sessions[-1]['versions'].get(name)}" for name in ("keras", "tensorflow"))
    seeds = f"{len(study.seeds)} seeds, mean ± standard deviation" if len(study.seeds) > 1 else "one seed"
    return [
        f"{study.title}, in percent; {seeds}. `python -m launch.study --name={study.name} --workdir=FOLDER` at commit "
        f"{', '.join(commits)}, on {'; '.join(machines)}, with {versions}."
    ]
