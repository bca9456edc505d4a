"""How much memory a real run needs, step by step: it must not grow."""

import bisect
import dataclasses
import os
import pathlib
import statistics
import time

from experiments.circumstances import circumstances
from experiments.errors import UserError
from experiments.reliability.process import Attempt, Command, new_folder, write_preset

SECONDS_BETWEEN_SAMPLES = 0.1
MIB = 2**20
SHOWN = 10  # steps that are shown on the way


def run(config, settings, folder, start=None, say=print):
    """Runs a task once and watches the memory that its process has resident.

    Args:
        config: the `Config`.
        settings: the `MemorySettings`.
        folder: path of a new folder for the run and what it writes to the terminal.
        start: function that starts a command, see `process.Command`; None for one like any other.
        say: function that takes a line for the user.

    Returns:
        All that was found, for a file: `settings`, `resident` (`[step, bytes]` along the run), `growth` (from
        `from_step` to the end, as a share), `findings` (a line if that is too much), and the circumstances.

    Raises:
        UserError: if the folder is not new, the run too short, or the system does not say what a process needs.
        RunError: if the run ends with an error.
    """
    if not pathlib.Path("/proc/self/statm").exists():
        raise UserError("Resident memory is read from /proc, which this system does not have: use Linux.")
    began_in, folder = circumstances(), new_folder(folder)
    start = Command(settings.task, write_preset(folder / "preset.py", config), start)
    with Attempt(start, folder / "run", folder / "run.log") as attempt:
        samples = _watch(attempt)
        attempt.wait_for_end()
    last = max(step for step, _ in samples)
    if last <= settings.from_step:
        raise UserError(f"The run has {last} steps: name a --from_step before its end.")
    resident = [[step, resident_at(samples, step)] for step in _shown(settings.from_step, last)]
    for step, size in resident:
        say(f"  step {step:>7,}  {size / MIB:>9,.1f} MiB")
    first, final = resident[0][1], resident[-1][1]
    growth = final / first - 1
    findings = []
    if growth > settings.tolerance:
        findings.append(
            f"Memory grew by {growth:.1%} from step {settings.from_step:,} to step {last:,}, {first / MIB:,.1f} to "
            f"{final / MIB:,.1f} MiB: more than {settings.tolerance:.1%}."
        )
    return {
        "what": "memory",
        "settings": dataclasses.asdict(settings),
        "config": config.to_dict(),
        "resident": resident,
        "growth": growth,
        "findings": findings,
        **began_in,
    }


def resident_at(samples, step):
    """Returns the resident bytes at a step: the median of what was seen while that step was the newest.

    Where a step was too short to be seen, the step before it counts that was.

    Args:
        samples: `(step, bytes)` in the order of the steps.
        step: the step.
    """
    end = bisect.bisect_right(samples, step, key=lambda sample: sample[0])
    if not end:
        raise ValueError(f"Nothing was seen up to step {step}.")
    seen = samples[end - 1][0]
    return statistics.median(size for step, size in samples[:end] if step == seen)


def _watch(attempt):
    """Returns `(step, bytes)` every little while until the process ends."""
    samples = []
    while attempt.process.poll() is None:
        samples.append((attempt.step, _resident(attempt.process.pid)))
        time.sleep(SECONDS_BETWEEN_SAMPLES)
    # A process that has ended has none left.
    return [(step, size) for step, size in samples if size]


def _resident(pid):
    try:
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _shown(first, last):
    """Returns steps evenly spaced from one to another, both of them included."""
    return sorted({first + round(i * (last - first) / SHOWN) for i in range(SHOWN + 1)})
