"""Opens, plans and runs studies, and reports on them.

Started again, a study skips the trials that are complete and resumes the one that was stopped.
"""

import dataclasses
import fnmatch
import gc
import statistics
import time
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from experiments.config import Config
from experiments.data.sources import open_source
from experiments.errors import Interrupted, UserError
from experiments.io import is_url, local_path
from experiments.provenance import provenance
from experiments.studies.budgets import Budget
from experiments.studies.report import write_report
from experiments.studies.study import Study, Trial
from experiments.training.guards import ignoring_broken_pipe, stopping_at_once
from experiments.training.loggers import read_metrics
from experiments.training.workdir import check_writable, read_json, write_json
from experiments.types import Log, Path

RECORD = "study.json"
# Guesses for the preset `fashion_mnist_study` on two cores, until trials are complete: images/s of training, and the
# seconds of a trial besides, for opening data, compiling and evaluation.
IMAGES_PER_SECOND = {"pretrain": 1000.0, "finetune": 850.0}
SECONDS_BESIDES = {"pretrain": 20.0, "finetune": 20.0, "test": 10.0, "probe": 90.0}


def open_study(
    kinds: Mapping[str, type[Study]],
    workdir: str | Path,
    name: str = "",
    config: Config | None = None,
    budget: str | Budget = "full",
    num_seeds: int = 0,
) -> Study:
    """Returns a `Study`, new or to go on with; without a name the one in the folder as it was last run.

    Args:
        kinds: classes of studies by name.
        workdir: its folder.
        name: of the study.
        config: the `Config` that its trials change parts of.
        budget: name of one of its budgets, or a `Budget`.
        num_seeds: number of repetitions; 0 for those of its kind.

    Raises:
        UserError: if the folder holds another study, or none where no name is given, or the images cannot be opened. A
            study with more numbers of labels is the same one.
    """
    if is_url(workdir):
        raise UserError(f"--workdir={workdir}: a study needs a local folder.")
    root = local_path(workdir)
    before, _ = _recorded(root)
    if not name:
        if not before:
            raise UserError(f"{root} holds no study: run it first, without --tables_only.")
        return kinds[before.pop("name")](root, **before)
    check_writable(root)
    kind = kinds[name]
    budget = kind.budgets[budget] if isinstance(budget, str) else budget
    now = {"name": name, "config": config, "budget": budget}
    different = [key for key, value in now.items() if before and value != before[key]]
    if "budget" in different and budget.extends(before["budget"]):
        different.remove("budget")
    if different:
        raise UserError(f"{root} holds a study of another {' and '.join(different)}: name another --workdir.")
    assert config is not None
    num_images = before["num_images"] if before else open_source(config.data).split("train").num_examples
    return kind(root, config, budget, tuple(range(num_seeds or kind.num_seeds)), num_images)


def _recorded(root: Path) -> tuple[dict[str, Any], list[dict]]:
    """Returns `(settings, sessions)` of the study in a folder, of which nothing is there before it has begun."""
    if not (root / RECORD).exists():
        return {}, []
    record = read_json(root / RECORD, "name another --workdir", "settings", "sessions")
    settings = record["settings"]
    values = {"config": Config.from_dict(settings["config"]), "budget": Budget.of(settings["budget"])}
    return {**settings, **values, "seeds": tuple(settings["seeds"])}, record["sessions"]


def run(study: Study, only: str = "", log: Log = print) -> None:
    """Runs what is left of a study, and writes its report.

    Args:
        study: a `Study`.
        only: pattern of the names of the trials that are run, as of files: `seed_0/labels_600/*`; empty for all.
        log: function that takes a line for the user.

    Raises:
        Interrupted: if it was asked to stop; the report has what there is.
        UserError, RunError: of a trial.
    """
    log = ignoring_broken_pipe(log)
    _, sessions = _recorded(study.root)
    settings = {name: getattr(study, name) for name in ("name", "seeds", "num_images")}
    settings |= {"config": study.config.to_dict(), "budget": dataclasses.asdict(study.budget)}
    study.root.mkdir(parents=True, exist_ok=True)
    write_json(study.root / RECORD, {"settings": settings, "sessions": [*sessions, provenance()]})

    def result_of(trial: Trial) -> dict[str, Any] | None:
        if fnmatch.fnmatch(trial.name, only or "*") and trial.is_due:
            _run_trial(study, trial, log)
        return trial.result

    try:
        with stopping_at_once():
            study.collect(result_of)
    except Interrupted:
        report(study, log)
        raise
    report(study, log)


def report(study: Study, log: Log = print) -> None:
    """Writes the report of the trials that are complete; see `write_report`."""
    write_report(study, _recorded(study.root)[1], log)


def plan(study: Study, log: Log = print) -> None:
    """Logs the trials in their order, which of them are complete, and what the others may cost.

    The speeds are those of the trials that are complete, before that guesses.
    """
    trials, complete, left = study.trials(), 0, 0.0
    speeds = {task: _measured_speed(trials, task) or speed for task, speed in IMAGES_PER_SECOND.items()}
    for trial in trials:
        steps, batch_size = trial.length
        seconds = SECONDS_BESIDES[trial.task] + steps * batch_size / speeds.get(trial.task, 1.0)
        state = f"{seconds:.0f} s"
        if trial.result is None:
            left += seconds
        else:
            complete, state = complete + 1, "complete"
        log(f"  {trial.task:<9} {trial.name:<50} {f'{steps:,} steps' if steps else '':>12} {state:>10}")
    at = ", ".join(f"{task} {speed:,.0f} images/s" for task, speed in speeds.items())
    if study.budget.more_rates:
        at += f"; up to {study.budget.more_rates} more rates an arm if its best is at an edge"
    log(f"{len(trials)} trials, {complete} complete; about {left / 60:.0f} minutes left at {at}")


def _run_trial(study: Study, trial: Trial, log: Log) -> None:
    log(f"{study.name}: {trial.task} {trial.name}")
    began = time.perf_counter()
    trial.work(trial, log)
    log(f"  done in {time.perf_counter() - began:.0f} s")
    # Graphs and models of a run that is over would stay in memory.
    keras.utils.clear_session()
    gc.collect()


def _measured_speed(trials: Iterable[Trial], task: str) -> float | None:
    """Returns the median images/s of the complete trials of a task; None without any."""
    complete = (trial for trial in trials if trial.task == task and trial.result is not None)
    lines = (line for trial in complete for line in read_metrics(trial.folder))
    speeds = [line["images_per_second"] for line in lines if "images_per_second" in line]
    return statistics.median(speeds) if speeds else None
