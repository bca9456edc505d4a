"""How runs were made: configurations, commands, hardware, commits and versions."""

import json

from experiments.report.course import clock, duration, seconds_taken, segment_seconds, state
from experiments.report.differences import NOT_USED, differing_fields
from experiments.report.markup import fold, join, table, tag
from experiments.report.summary import written


def differences_section(entries):
    """Returns the fields of the configuration in which runs differ; None for a single run."""
    if len(entries) < 2:
        return None
    differing = differing_fields([entry.run for entry in entries])
    rows = [[name, *(_value(value) for value in values)] for name, values in differing.items()]
    made = table(["field", *(entry.label for entry in entries)], rows, class_="fields")
    note = "Fields that a run does not use are left empty; – stands for a field that is not on record."
    return tag(
        "section",
        tag("h2", "What differs in the configurations"),
        join(made, tag("p", note, class_="note")) if rows else tag("p", "Nothing."),
    )


def making_section(entries):
    """Returns how each run was made."""
    return tag("section", tag("h2", "How the runs were made"), [_article(entry) for entry in entries])


def _value(value):
    if value is NOT_USED:
        return ""
    text = written(value)
    return "–" if text is None else text


def _article(entry):
    run = entry.run
    segments = run.segments
    commands = list(dict.fromkeys(str(one["command"]) for one in segments if one.get("command")))
    return tag(
        "article",
        tag("h3", entry.label),
        [tag("pre", command, class_="command") for command in commands],
        _facts(run),
        _segments(segments) if len(segments) > 1 else None,
        tag("ul", [tag("li", problem) for problem in run.problems], class_="problems") if run.problems else None,
        fold("The whole configuration", tag("pre", json.dumps(run.config, indent=2, ensure_ascii=False)))
        if run.config
        else None,
        id=f"run-{entry.place}",
    )


def _facts(run):
    last = run.segments[-1] if run.segments else {}
    seconds = seconds_taken(run)
    facts = {
        "folder": str(run.workdir),
        "state": state(run),
        "started": clock(run.segments[0].get("started")) if run.segments else None,
        "time": duration(seconds) if seconds is not None else None,
        "devices": _devices(last),
        "machine": _machine(last.get("hardware")),
        "commit": _commit(last) if last else None,
        "versions": _pairs(last.get("versions")),
    }
    return tag("dl", [join(tag("dt", name), tag("dd", fact)) for name, fact in facts.items() if fact])


def _devices(segment):
    gpus = segment.get("gpus")
    names = dict.fromkeys(map(str, gpus)) if isinstance(gpus, list) else ()
    parts = [segment.get("devices"), ", ".join(names), segment.get("precision")]
    return ", ".join(str(part) for part in parts if part)


def _machine(hardware):
    if not isinstance(hardware, dict):
        return None
    return f"{hardware.get('cpu')}, {hardware.get('cores')} cores, {hardware.get('system')}"


def _commit(segment):
    commit = segment.get("commit")
    if not commit:
        return "unknown"
    return f"{commit}, with uncommitted changes" if segment.get("uncommitted_changes") else str(commit)


def _pairs(values):
    return ", ".join(f"{name} {value}" for name, value in values.items()) if isinstance(values, dict) else None


def _segments(segments):
    """Returns a table of the stretches of a run that was stopped and went on."""
    rows = [
        [
            clock(one.get("started")) or "–",
            f"{one.get('from_step')} to {one.get('to_step')}",
            duration(seconds) if (seconds := segment_seconds(one)) is not None else "–",
            "" if one.get("ended") else "killed or under way",
            str(one.get("commit") or "unknown")[:12],
        ]
        for one in segments
    ]
    return table(["started", "steps", "time", "end", "commit"], rows, class_="figures")
