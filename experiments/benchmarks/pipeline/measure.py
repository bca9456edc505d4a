"""How many images a second the input pipeline makes, with and without each stage, beside Pillow.

The contenders take turns, round after round, so that a load of the machine meets all of them. Each may use all cores
of the machine, or as many as it is told. Figures are medians over the rounds; contenders are compared within rounds.
"""

import dataclasses
import os
import tempfile

from experiments.benchmarks.pipeline.photographs import write_photographs
from experiments.benchmarks.pipeline.report import opening_lines, table_lines
from experiments.benchmarks.pipeline.settings import PILLOW, PILLOW_CONTENDERS
from experiments.benchmarks.statistics import summarize
from experiments.benchmarks.turns import ContenderProcess
from experiments.errors import UserError
from experiments.provenance import provenance

WORKER = "experiments.benchmarks.pipeline.worker"
ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}


def run(settings, log=print):
    """Measures, and prints a table.

    Args:
        settings: `InputSettings`.
        log: function that takes a line for the user.

    Returns:
        Everything measured, as plain values.

    Raises:
        UserError: if there are fewer cores than asked for.
        RunError: if a contender fails.
    """
    available = len(os.sched_getaffinity(0))
    if settings.cores > available:
        raise UserError(f"--cores={settings.cores}: there are {available}.")
    results = {"what": "input", "settings": dataclasses.asdict(settings), **provenance()}
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(path) for path in write_photographs(folder, settings.files, settings.seed)]
        results["mean_file_bytes"] = sum(os.path.getsize(path) for path in paths) / len(paths)
        for line in opening_lines(settings, results):
            log(line)
        turns, cores = _take_turns(settings, paths)
    results |= table(settings, turns, cores)
    for line in table_lines(results):
        log(line)
    return results


def _take_turns(settings, paths):
    """Returns `({contender: its turns}, cores)`."""
    task = {"settings": dataclasses.asdict(settings), "paths": paths}
    with (
        ContenderProcess("tensorflow", WORKER, {**task, "kind": "tensorflow"}, ENVIRONMENT) as tensorflow,
        ContenderProcess(PILLOW, WORKER, {**task, "kind": PILLOW}, ENVIRONMENT) as pillow,
    ):
        processes = {name: pillow for name in PILLOW_CONTENDERS} | {name: tensorflow for name in settings.stages}
        turns = {name: [] for name in processes}
        for _ in range(settings.rounds):
            for name, process in processes.items():
                turns[name].append(process.ask(name))
        return turns, tensorflow.opening["cores"]


def table(settings, turns, cores):
    """Puts figures together.

    Args:
        settings: `InputSettings`.
        turns: `{contender: turns}`, one a round, each with its `seconds`, `core_seconds` and `others_cores`.
        cores: that each contender could use.

    Returns:
        `{"cores", "contenders": {name: figures}}`, each figure with its spread: `images_per_second` of all cores
        together, the same `images_per_second_per_core`, `core_seconds_per_image` in which cores worked, and
        `times_as_fast` as each of Pillow's contenders.
    """
    contenders = {}
    for name, own in turns.items():
        rates = [settings.images / turn["seconds"] for turn in own]
        ratios = {
            reference: summarize([its["seconds"] / turn["seconds"] for its, turn in zip(turns[reference], own)])
            for reference in PILLOW_CONTENDERS
        }
        contenders[name] = {
            "images_per_second": {**summarize(rates), "rounds": rates},
            "images_per_second_per_core": summarize([rate / cores for rate in rates]),
            "core_seconds_per_image": summarize([turn["core_seconds"] / settings.images for turn in own]),
            "times_as_fast": ratios,
            "others_cores": [turn["others_cores"] for turn in own],
        }
    return {"cores": cores, "contenders": contenders}
