"""When and how a run is killed."""

import dataclasses
import os
import signal
import time

import numpy as np

from experiments.errors import UserError
from experiments.reliability.damage import complete_steps, unfinished_files
from experiments.reliability.process import changed_at

# Moments: after a step; before the first step of a process; while a checkpoint is written; the same, but of the
# checkpoint that SIGTERM asks for, as a scheduler that grants too little time would do it.
STEPPING, STARTING, SAVING, STOPPING = "stepping", "starting", "saving", "stopping"
SHARE_STARTING = 0.15
SHARE_STOPPING = 0.4
LONGEST_DELAY = 0.15  # seconds from a moment that can be seen to the kill, which may then come at any other
LONGEST_DELAY_SAVING = 0.02


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill to come.

    Args:
        moment: one of those above.
        step: it comes when this step is done, or at the first chance after it.
        damages: whether the newest checkpoint is damaged after it.
    """

    moment: str
    step: int
    damages: bool = False


def draw_kills(settings, total_steps, checkpoint_every):
    """Draws the kills of a run, the last of them at its end, when it writes what it leaves.

    Args:
        settings: the `SoakSettings`.
        total_steps: steps of the run.
        checkpoint_every: steps between two checkpoints.

    Returns:
        A list of `Kill` in the order of their steps.

    Raises:
        UserError: if the run is too short.
    """
    random = np.random.default_rng(settings.seed)
    # Before the last checkpoints, so that a kill which finds no write under way may wait for the next.
    late = total_steps - 3 * checkpoint_every
    if late < settings.kills:
        raise UserError(
            f"A run of {total_steps} steps with a checkpoint every {checkpoint_every} is too short for "
            f"{settings.kills} kills: it takes {settings.kills + 3 * checkpoint_every} steps or more."
        )
    steps = np.sort(random.choice(np.arange(1, late + 1), settings.kills - 1, replace=False)).tolist()
    saving = set(random.choice(len(steps), settings.kills_while_saving, replace=False).tolist())
    moments = [_moment(random, i in saving) for i in range(len(steps))] + [STEPPING]
    steps.append(total_steps)
    # Damage needs a checkpoint before the newest, so it waits until there are some.
    others = [i for i, step in enumerate(steps) if i not in saving and step > 2 * checkpoint_every]
    if len(others) < settings.damages:
        raise UserError(
            f"Too few kills come after {2 * checkpoint_every} steps, when there are checkpoints to damage: "
            "use more kills, more steps or a smaller checkpoint_every."
        )
    damages = set(random.choice(others, settings.damages, replace=False).tolist()) if settings.damages else set()
    return [Kill(moment, step, i in damages) for i, (moment, step) in enumerate(zip(moments, steps))]


def _moment(random, saving):
    if saving:
        return STOPPING if random.random() < SHARE_STOPPING else SAVING
    return STARTING if random.random() < SHARE_STARTING else STEPPING


def carry_out(kill, attempt, folder, random):
    """Waits for the moment and kills the process.

    Args:
        kill: a `Kill`.
        attempt: the `Attempt`, just started.
        folder: of the checkpoints.
        random: a `numpy.random.Generator`.

    Returns:
        What was under way, in words.

    Raises:
        EndedEarlyError: if the process ends before.
    """
    attempt.wait_for(lambda: attempt.resumed_from is not None, "it said what it starts from")
    if kill.moment == STARTING:
        time.sleep(random.uniform(0, LONGEST_DELAY))
        return _kill(attempt, "starting")
    attempt.wait_for(lambda: attempt.step >= kill.step, f"step {kill.step}")
    if kill.moment == STEPPING:
        time.sleep(random.uniform(0, LONGEST_DELAY))
        return _kill(attempt, "stepping")
    if kill.moment == STOPPING:
        os.kill(attempt.process.pid, signal.SIGTERM)
    return _kill(attempt, f"{kill.moment}: {_halt_while_saving(attempt, folder, random)}")


def _kill(attempt, what):
    os.kill(attempt.process.pid, signal.SIGKILL)
    attempt.process.wait()
    return what


def _halt_while_saving(attempt, folder, random):
    """Halts the process in the middle of writing a checkpoint; returns what shows that.

    The folder is watched. When it changes, the process is halted after a short random time, and it is looked at what
    is there: a write is not over as long as there are new files that belong to no complete checkpoint, the new one
    half written or the oldest half removed. If it is over, the process goes on until the next time.
    """
    longest = LONGEST_DELAY_SAVING
    while True:
        known, before = unfinished_files(folder), changed_at(folder)
        attempt.wait_for(lambda: changed_at(folder) != before, "a checkpoint was being written")  # noqa: B023
        time.sleep(random.uniform(0, longest))
        _halt(attempt.process)
        if unfinished := unfinished_files(folder) - known:
            complete = f"that of step {steps[-1]:,}" if (steps := complete_steps(folder)) else "none"
            return f"{', '.join(sorted(unfinished))} (newest complete checkpoint: {complete})"
        os.kill(attempt.process.pid, signal.SIGCONT)
        longest /= 2


def _halt(process):
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
