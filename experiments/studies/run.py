"""Runs a study, from where it stands, and makes its tables and its picture of what lies in its folder."""

import dataclasses
import fnmatch
import gc
import json
import time

import keras

from experiments.config import Config
from experiments.data.sources import open_source
from experiments.errors import Interrupted, UserError
from experiments.io import is_url, local_path
from experiments.provenance import provenance
from experiments.studies import budgets
from experiments.studies.ablations import Ablations
from experiments.studies.budgets import Budget, Length
from experiments.studies.cost import estimate_lines
from experiments.studies.fewer_labels import FewerLabels
from experiments.studies.report import write_report
from experiments.training.guards import ignoring_broken_pipe, stopping_at_once
from experiments.training.workdir import check_writable, read_json, write_json

STUDIES = {"fewer_labels": FewerLabels, "ablations": Ablations}
BUDGETS = {"fewer_labels": budgets.FEWER_LABELS, "ablations": budgets.ABLATIONS}
SEEDS = {"fewer_labels": 3, "ablations": 1}
RECORD = "study.json"


def open_study(name, config, workdir, budget="full", num_seeds=0):
    """Returns a `Study`, new or to go on with.

    Args:
        name: from `STUDIES`.
        config: the `Config` that its trials change parts of.
        workdir: its folder.
        budget: name of a budget from `BUDGETS`, or a `Budget`.
        num_seeds: number of repetitions; 0 for those of `SEEDS`.

    Raises:
        UserError: if the folder holds another study, or the images cannot be opened.
    """
    if is_url(workdir):
        raise UserError(f"--workdir={workdir}: a study needs a folder of this machine.")
    root = local_path(workdir)
    check_writable(root)
    lengths = BUDGETS[name][budget] if isinstance(budget, str) else budget
    seeds = tuple(range(num_seeds or SEEDS[name]))
    record = _record(root)
    if not record:
        num_images = open_source(config.data).split("train").num_examples
        return STUDIES[name](root, config, lengths, seeds, num_images)
    study = STUDIES[name](root, config, lengths, seeds, record["settings"]["num_images"])
    before, now = record["settings"], _settings(study)
    different = [key for key in ("name", "config", "budget") if before[key] != now[key]]
    if different:
        raise UserError(f"{root} holds a study of another {' and '.join(different)}: name another --workdir.")
    return study


def reopen_study(workdir):
    """Returns the `Study` that lies in a folder, as it was last run.

    Raises:
        UserError: if there is none.
    """
    root = local_path(workdir)
    record = _record(root)
    if not record:
        raise UserError(f"{root} holds no study: run it first, without --tables_only.")
    settings = record["settings"]
    lengths = {key: tuple(Length(**_tuples(length)) for length in settings["budget"][key]) for key in ("few", "many")}
    budget = Budget(**{**settings["budget"], **lengths})
    config = Config.from_dict(settings["config"])
    return STUDIES[settings["name"]](root, config, budget, tuple(settings["seeds"]), settings["num_images"])


def run(study, only="", log=print):
    """Does what is left of a study, and writes its report.

    Args:
        study: a `Study`.
        only: pattern of the names of the trials that are done, as of files: `seed_0/labels_600/*`; empty for all.
        log: function that takes a line for the user.

    Returns:
        The paths of the report's files.

    Raises:
        Interrupted: if it was asked to stop; the report has what there is.
        UserError, RunError: of a trial.
    """
    log = ignoring_broken_pipe(log)
    _begin_session(study)
    try:
        with stopping_at_once():
            for trial in _left(study, only):
                _run_trial(study, trial, log)
    except Interrupted:
        report(study, log)
        raise
    return report(study, log)


def report(study, log=print):
    """Makes the report of a study of what lies in its folder; see `write_report`."""
    return write_report(study, _record(study.root)["sessions"], log)


def plan(study, log=print):
    """Prints the trials in their order, which of them are complete, and what the others may cost."""
    for line in estimate_lines(study, list(_each_once(study.trials()))):
        log(line)


def _left(study, only):
    """Yields the trials that are not complete, whose time has come and that are asked for."""
    for trial in _each_once(study.trials()):
        asked_for = not only or fnmatch.fnmatch(trial.name, only)
        if asked_for and trial.is_ready and not trial.is_complete:
            yield trial


def _each_once(trials):
    """Yields trials without those that came before: the run of a rate may be the final one as well."""
    seen = set()
    for trial in trials:
        key = trial.task, trial.name
        if key not in seen:
            seen.add(key)
            yield trial


def _run_trial(study, trial, log):
    log(f"{study.name}: {trial.task} {trial.name}")
    began = time.perf_counter()
    trial.run(log)
    log(f"  done in {time.perf_counter() - began:.0f} s")
    # Graphs and models of a run that is over would stay in memory.
    keras.utils.clear_session()
    gc.collect()


def _record(root):
    path = root / RECORD
    return read_json(path, "name another --workdir", "settings", "sessions") if path.exists() else None


def _settings(study):
    """Returns what decides what comes of a study, as plain values."""
    settings = {
        "name": study.name,
        "config": study.config.to_dict(),
        "budget": dataclasses.asdict(study.budget),
        "seeds": study.seeds,
        "num_images": study.num_images,
    }
    return json.loads(json.dumps(settings))  # tuples become lists


def _tuples(length):
    return {**length, "rates": tuple(length["rates"])}


def _begin_session(study):
    """Notes what the study is, and on what it runs from now on."""
    sessions = (_record(study.root) or {"sessions": []})["sessions"]
    study.root.mkdir(parents=True, exist_ok=True)
    write_json(study.root / RECORD, {"settings": _settings(study), "sessions": [*sessions, provenance()]})
