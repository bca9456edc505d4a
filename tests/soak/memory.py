"""How much memory a run has resident, step by step."""

import collections
import statistics
import time

SECONDS_BETWEEN_SAMPLES = 0.1
MIB = 2**20
SHOWN = 10  # steps that are printed


def sample(attempt, seconds=SECONDS_BETWEEN_SAMPLES):
    """Returns `{step: bytes}` of a run, an `Attempt`, to its end: the median while that step was the newest."""
    samples = collections.defaultdict(list)
    while attempt.code is None:
        samples[attempt.step].append(attempt.resident)
        time.sleep(seconds)
    attempt.wait_for_end()
    return {step: statistics.median(sizes) for step, sizes in samples.items()}


def growth(resident, first):
    """Prints the memory of a run along its steps; returns its growth from step `first` to the last, as a share."""
    last = max(resident)
    assert first < last, f"the run has {last} steps"
    for i in range(SHOWN + 1):
        step = first + i * (last - first) // SHOWN
        print(f"  step {step:>7,}  {at(resident, step) / MIB:>9,.1f} MiB")
    return at(resident, last) / at(resident, first) - 1


def at(resident, step):
    """Returns the bytes at a step, or at the one before it that was slow enough to be seen."""
    return resident[max(seen for seen in resident if seen <= step)]
