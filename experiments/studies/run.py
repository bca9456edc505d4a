"""Runs a study, from where it stands, and makes its tables and its picture of what lies in its folder."""

import dataclasses
import fnmatch
import gc
import json
import pathlib
import time

import keras

from experiments.benchmarks.circumstances import circumstances
from experiments.data.sources import open_source
from experiments.errors import Interrupted, UserError
from experiments.studies import budgets
from experiments.studies.ablations import Ablations
from experiments.studies.cost import estimate_lines
from experiments.studies.fewer_labels import FewerLabels
from experiments.studies.report import write_report
from experiments.training.workdir import read_json, write_json

STUDIES = {"fewer_labels": FewerLabels, "ablations": Ablations}
BUDGETS = {"fewer_labels": budgets.FEWER_LABELS, "ablations": budgets.ABLATIONS}
SEEDS = {"fewer_labels": 3, "ablations": 1}
RECORD = "study.json"


def open_study(name, config, workdir, budget="full", num_seeds=0):
    """Returns a `Study`, new or as it lies in its folder.

    Args:
        name: from `STUDIES`.
        config: the `Config` that its trials change parts of.
        workdir: its folder.
        budget: name of a budget from `BUDGETS`, or a `Budget`.
        num_seeds: number of repetitions; 0 for those of `SEEDS`.

    Raises:
        UserError: if the folder holds another study, or the images cannot be opened.
    """
    root = pathlib.Path(workdir).expanduser()
    lengths = BUDGETS[name][budget] if isinstance(budget, str) else budget
    settings = {"name": name, "config": config.to_dict(), "budget": dataclasses.asdict(lengths)}
    settings = json.loads(json.dumps(settings))  # tuples become lists
    record = _record(root)
    if record:
        _check_same(root, record["settings"], settings)
        num_images = record["num_images"]
    else:
        num_images = open_source(config.data).split("train").num_examples
    seeds = tuple(range(num_seeds or SEEDS[name]))
    return STUDIES[name](root, config, lengths, seeds, num_images), settings


def run(study, settings, only="", say=print):
    """Does what is left of a study, and writes its report.

    Args:
        study: a `Study`.
        settings: what `open_study` returned beside it.
        only: pattern of the names of the trials that are done, as of files: `seed_0/labels_600/*`; empty for all.
        say: function that takes a line for the user.

    Returns:
        The paths of the report's files.

    Raises:
        Interrupted: if it was asked to stop; the report has what there is.
        UserError, RunError: of a trial.
    """
    _begin_session(study, settings)
    try:
        for trial in _left(study, only):
            _run_trial(study, trial, say)
    except Interrupted:
        write_report(study, _record(study.root), say)
        raise
    return report(study, say)


def report(study, say=print):
    """Makes the report of a study of what lies in its folder; see `write_report`.

    Raises:
        UserError: if there is nothing.
    """
    record = _record(study.root)
    if not record:
        raise UserError(f"{study.root} holds no study: run it first, without --tables_only.")
    return write_report(study, record, say)


def plan(study, say=print):
    """Prints the trials in their order, which of them are complete, and what the others may cost."""
    for line in estimate_lines(study, list(_each_once(study.trials()))):
        say(line)


def _left(study, only):
    """Yields the trials that are not complete, whose time has come and that are asked for."""
    for trial in _each_once(study.trials()):
        if trial.is_complete:
            trial.check()
        elif trial.is_ready and (not only or fnmatch.fnmatch(trial.name, only)):
            yield trial


def _each_once(trials):
    """Yields trials without those that came before: the run of a rate may be the final one as well."""
    seen = set()
    for trial in trials:
        key = trial.task, trial.name
        if key not in seen:
            seen.add(key)
            yield trial


def _run_trial(study, trial, say):
    say(f"{study.name}: {trial.task} {trial.name}")
    began = time.perf_counter()
    trial.check()
    trial.run(_quiet)
    say(f"  done in {time.perf_counter() - began:.0f} s")
    # Graphs and models of a run that is over would stay in memory.
    keras.utils.clear_session()
    gc.collect()


def _record(root):
    path = root / RECORD
    return read_json(path) if path.exists() else None


def _check_same(root, before, now):
    if before["name"] != now["name"]:
        raise UserError(f"{root} holds the study {before['name']}: name another --workdir for {now['name']}.")
    before, now = ({**settings, "config": _deciding(settings["config"])} for settings in (before, now))
    if before != now:
        different = [name for name in ("config", "budget") if before[name] != now[name]]
        raise UserError(f"{root} holds a study of another {' and '.join(different)}: name another --workdir.")


def _deciding(config):
    """Returns a configuration without the place of the data, which may move between two sessions."""
    return {**config, "data": {name: value for name, value in config["data"].items() if name != "dir"}}


def _begin_session(study, settings):
    """Notes on what the study runs from now on."""
    record = _record(study.root) or {"settings": settings, "num_images": study.num_images, "sessions": []}
    record["sessions"].append(circumstances())
    study.root.mkdir(parents=True, exist_ok=True)
    write_json(study.root / RECORD, record)


def _quiet(line):
    del line
