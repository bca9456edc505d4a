"""How many images a second a training step of FCMAE takes, in each execution.

A step is forward pass, backward pass and AdamW. For each mask ratio the contenders are made and warmed up, then each
takes its turn of some steps, round after round, so that a load of the machine meets all of them. Figures are medians
over the rounds; contenders are compared within rounds.
"""

import contextlib
import dataclasses
import importlib.util
import math

from experiments.benchmarks.flops import Sizes, step_flops
from experiments.benchmarks.report import NAME_WIDTH, opening_lines, table_lines
from experiments.benchmarks.settings import PYTORCH
from experiments.benchmarks.statistics import speed_ratios, summarize
from experiments.benchmarks.turns import Worker
from experiments.errors import RunError, UserError
from experiments.provenance import provenance

PACKAGE_OF = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch", PYTORCH: "torch"}


def run(settings, log=print):
    """Measures, and prints a table for each mask ratio.

    Args:
        settings: `StepSettings`.
        log: function that takes a line for the user.

    Returns:
        Everything measured, as plain values; what `measure` returns is in the list `tables`.

    Raises:
        UserError: if a package is missing that a contender needs.
        RunError: if a contender fails.
    """
    _check_packages(settings)
    results = {"what": "step", "settings": dataclasses.asdict(settings), **provenance(), "tables": []}
    for line in opening_lines(settings, results):
        log(line)
    for ratio in settings.mask_ratio:
        table = measure(settings, ratio, log)
        results["tables"].append(table)
        for line in table_lines(table):
            log(line)
    return results


def _check_packages(settings):
    for name in dict.fromkeys(PYTORCH if name == PYTORCH else settings.backend for name in settings.execution):
        package = PACKAGE_OF[name]
        if importlib.util.find_spec(package) is None:
            flag = "--execution=pytorch" if name == PYTORCH else f"--backend={name}"
            raise UserError(f"{flag} needs {package}, which is not installed: pip install {package}")


def measure(settings, ratio, log):
    """Times the contenders at one mask ratio.

    Args:
        settings: `StepSettings`.
        ratio: one of their mask ratios.
        log: function that takes a line for the user.

    Returns:
        A dictionary: `mask_ratio` as it was timed and `requested_mask_ratio`, `num_patches`, `num_visible`,
        `contenders` with the figures of each, and `ratios` of speed, two by two.
    """
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in settings.contenders:
            workers[name] = worker = stack.enter_context(Worker(settings, ratio, name))
            log(f"  {name:<{NAME_WIDTH}} first step after {worker.opening['seconds_until_first_step']:.1f} s")
        turns = {name: [] for name in workers}
        products = {name: [] for name in workers}
        for _ in range(settings.rounds):
            for name, worker in workers.items():
                turns[name].append(worker.steps())
                products[name].append(worker.matrix_product())
        openings = {name: worker.opening for name, worker in workers.items()}
    return _table(settings, ratio, openings, turns, products)


def _table(settings, ratio, openings, turns, products):
    """Puts together what `measure` returns."""
    seconds = {name: [turn["seconds"] / settings.steps for turn in turns[name]] for name in turns}
    for name in turns:
        if not all(math.isfinite(turn["loss"]) for turn in turns[name]):
            raise RunError(f"The loss of {name} is not finite, so its speed means nothing.")
    # One measure for all: the best that any contender's framework makes of the device.
    best_product = max(summarize(rates)["median"] for rates in products.values())
    contenders = {}
    for name in turns:
        parts = step_flops(_sizes(settings, ratio), settings.batch_size, *settings.contenders[name])
        rate = sum(parts.values()) / summarize(seconds[name])["median"]
        contenders[name] = {
            **openings[name],
            "seconds_per_step": {**summarize(seconds[name]), "rounds": seconds[name]},
            "images_per_second": summarize([settings.batch_size / value for value in seconds[name]]),
            "last_loss": turns[name][-1]["loss"],
            "others_cores": [turn["others_cores"] for turn in turns[name]],
            "flops_per_step": {"total": sum(parts.values()), **parts},
            "flops_per_second": rate,
            "matrix_product_flops_per_second": {**summarize(products[name]), "rounds": products[name]},
            "share_of_matrix_product": rate / best_product,
        }
    return {
        "requested_mask_ratio": ratio,
        "mask_ratio": settings.legal_ratio(ratio),
        "num_patches": settings.num_patches,
        "num_visible": settings.num_visible(ratio),
        "matrix_product_flops_per_second": best_product,
        "contenders": contenders,
        "ratios": speed_ratios(seconds),
    }


def _sizes(settings, ratio):
    model, data = settings.config(ratio).model, settings.config(ratio).data
    return Sizes(
        *model.stages,
        decoder_dim=model.decoder_dim,
        stem_stride=model.stem_stride,
        channels=data.channels,
        num_patches=settings.num_patches,
        num_visible=settings.num_visible(ratio),
    )
