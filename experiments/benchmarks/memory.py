"""The largest batch whose training step fits into memory: doubled until it does not fit, then found by bisection.

Each batch is tried in a process of its own, `python -m experiments.benchmarks.memory`, which may run out of memory.
"""

import dataclasses
import signal
from collections.abc import Callable, Mapping
from typing import Any

from experiments.benchmarks import harness
from experiments.benchmarks.candidates import candidate_class
from experiments.benchmarks.step import StepSettings, worker_environment
from experiments.config import from_mapping, size_text
from experiments.errors import RunError, UserError
from experiments.provenance import available_memory, provenance
from experiments.types import Log

LACK_OF_MEMORY = ("out of memory", "oom when", "resource_exhausted")  # words of the frameworks for it
SHARE = 8  # the largest batch is found to one part in so many


def run(settings: StepSettings, limit: int | None = None, log: Log = print) -> dict[str, Any]:
    """Finds the largest batch of the first candidate, and prints the peak of memory of each that is tried.

    Args:
        settings: `StepSettings`, whose batch is the first that is tried.
        limit: bytes that the step may take: on a CPU of the whole process, by default nine tenths of what is
            available; on a GPU what the framework allocates, by default all there is.
        log: function that takes a line for the user.

    Returns:
        Everything measured, as plain values: `largest_batch`, and `tried`, `{batch: peak in bytes, None if it failed}`.

    Raises:
        UserError: if not even a single image fits.
        RunError: if a process fails for another reason.
    """
    name = settings.candidates[0]
    config = settings.at(settings.ratios[0], name)
    results = {"what": "memory", "settings": dataclasses.asdict(settings), **provenance(), "limit": limit}
    facts = {
        "model": f"depths {config.model.stages[0]}, dims {config.model.stages[1]}, remat {config.model.remat}",
        "images": f"{size_text(config.data.image_size)}x{config.data.channels}, {name}",
        "backend": f"{settings.backend}, {settings.precision}, compile {config.compile}",
    }
    for line in harness.heading_lines("largest batch of a training step: forward, backward, AdamW", facts, results):
        log(line)
    tried: dict[int, int | None] = {}
    available = available_memory()

    def fits(batch: int) -> bool:
        if batch not in tried:
            peak, device = _peak(settings, batch)
            most = limit or (available * 9 // 10 if device == "CPU" else None)
            tried[batch] = peak if peak and (most is None or peak <= most) else None
            log(f"  batch {batch:>6,}  {peak / 2**20:,.0f} MiB" if peak else f"  batch {batch:>6,}  out of memory")
        return tried[batch] is not None

    results["largest_batch"] = largest(fits, config.pretrain.batch_size)
    if not results["largest_batch"]:
        raise UserError("Not even a batch of one image fits: use --config.model.remat=block or a smaller model.")
    log(f"  largest batch that fits: {results['largest_batch']:,}")
    return {**results, "tried": tried}


def largest(fits: Callable[[int], bool], first: int) -> int:
    """Returns the largest number that fits, to one part in `SHARE`; 0 if not even 1 does.

    Args:
        fits: function of a number that is true up to some number, and false from there on.
        first: where the search begins.
    """
    low, high = first, 0
    while low and not fits(low):
        low, high = low // 2, low
    while low and not high:
        low, high = (2 * low, 0) if fits(2 * low) else (low, 2 * low)
    while low and high - low > max(1, low // SHARE):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _peak(settings: StepSettings, batch: int) -> tuple[int | None, str]:
    """Returns the peak of memory of some steps with a batch in bytes, None if it does not fit, and the device."""
    pretrain = dataclasses.replace(settings.config.pretrain, batch_size=batch, accumulation_steps=1)
    config = dataclasses.replace(settings.config, pretrain=pretrain)
    task = {"settings": dataclasses.asdict(dataclasses.replace(settings, config=config))}
    name = settings.candidates[0]
    try:
        with harness.Worker(name, "experiments.benchmarks.memory", task, worker_environment(settings, name)) as worker:
            return worker.opening["peak"], worker.opening["device"]
    except RunError as error:
        if f"killed by signal {signal.SIGKILL:d}" not in str(error):
            raise
        return None, "CPU"


def _start(task: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[str], dict]]:
    """Takes steps; the opening has `peak`, None if they do not fit, and `device`."""
    settings = from_mapping(StepSettings, task["settings"], "")
    name = settings.candidates[0]
    candidate = None
    try:
        candidate = candidate_class(settings.backend, name)(settings.at(settings.ratios[0], name), settings.precision)
        candidate.run(settings.warmup)
        peak = candidate.device_peak() or harness.resident_peak()
    except Exception as error:  # each framework has one of its own
        text = str(error).lower()
        if not isinstance(error, MemoryError) and not any(words in text for words in LACK_OF_MEMORY):
            raise
        peak = None
    return {"peak": peak, "device": candidate.device if candidate else ""}, lambda request: {}


if __name__ == "__main__":
    harness.serve(_start)
