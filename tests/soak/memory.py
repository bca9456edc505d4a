"""How much memory a run has resident, step by step."""

import collections
import statistics
import time

SECONDS_BETWEEN_SAMPLES = 0.1
MIB = 2**20


def sample(attempt, seconds=SECONDS_BETWEEN_SAMPLES):
    """Returns `{step: bytes}` of a run, an `Attempt`, to its end: the median while that step was the newest."""
    samples = collections.defaultdict(list)
    while attempt.code is None:
        samples[attempt.step].append(attempt.resident)
        time.sleep(seconds)
    attempt.wait_for_end()
    return {step: statistics.median(sizes) for step, sizes in samples.items()}


def medians(resident, parts):
    """Prints and returns the median bytes in each of so many equal parts of a run, from what `sample` returns."""
    length, found = max(resident) / parts, []
    for i in range(parts):
        found.append(statistics.median(size for step, size in resident.items() if i < step / length <= i + 1))
        print(f"  steps to {(i + 1) * length:>7,.0f}  {found[-1] / MIB:>9,.1f} MiB")
    return found
