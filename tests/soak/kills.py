"""When and how a run is killed, what a failing disk does to its checkpoints, and what it must resume from."""

import collections
import dataclasses
import itertools
import pathlib
import signal
import time

from experiments.training.checkpoint import CHECKSUMS, CheckpointFiles
from tests.soak.process import Attempt, EndedEarlyError, changed_at

# Moments: after a step; before the first step of a process; while a checkpoint is written; the same, but of the
# checkpoint that SIGTERM asks for, as under a scheduler that grants too little time.
STEPPING, STARTING, SAVING, STOPPING = "stepping", "starting", "saving", "stopping"
LONGEST_DELAY = 0.15  # seconds from a visible moment to the kill, so that it may come at any other
LONGEST_DELAY_SAVING = 0.02
# The files of a checkpoint: values, where each of them lies, and checksums of both.
PARTS = (".data-00000-of-00001", ".index", CHECKSUMS)
FLIPPED_BYTES = 16


@dataclasses.dataclass(frozen=True)
class Kill:
    """A kill to come at a moment, when `step` is done or at the first chance after it.

    With `damages`, the newest checkpoint is damaged then, or after a later kill if there is none to fall back to yet.
    """

    moment: str
    step: int
    damages: bool = False


@dataclasses.dataclass(frozen=True)
class Damage:
    """What was done to a file of the checkpoint of a step; `left` is its content since then, None if it is gone."""

    step: int
    kind: str
    file: pathlib.Path
    left: bytes | None

    @property
    def persists(self):
        """Whether the file is still damaged: a run that reaches the step again writes it anew."""
        return (self.file.read_bytes() if self.file.exists() else None) == self.left


def draw_kills(random, total_steps, checkpoint_every, moments, damages):
    """Draws the kills of a run.

    Args:
        random: a `numpy.random.Generator`.
        total_steps: steps of the run.
        checkpoint_every: steps between two checkpoints.
        moments: `{moment: number of kills}`.
        damages: after how many of the kills while stepping or starting the newest checkpoint is damaged.

    Returns:
        A list of `Kill` in the order of their steps, and one more at the end, when the run writes its results.
    """
    # Before the last checkpoints, so that a kill which finds no write under way can wait for the next.
    late = total_steps - 3 * checkpoint_every
    moments = [*random.permutation(list(collections.Counter(moments).elements())).tolist(), STEPPING]
    steps = [*sorted(random.choice(late, len(moments) - 1, replace=False) + 1), total_steps]
    able = [i for i, moment in enumerate(moments[:-1]) if moment in (STEPPING, STARTING)]
    damaging = random.choice(able, damages, replace=False)
    return [Kill(moment, int(step), i in damaging) for i, (moment, step) in enumerate(zip(moments, steps))]


def kill_and_resume(train, workdir, kills, random):
    """Kills a run and starts it again, and checks that it always starts from its newest sound checkpoint.

    Args:
        train: picklable function of a workdir that trains there.
        workdir: new folder of the run; logs are written beside it.
        kills: list of `Kill`.
        random: a `numpy.random.Generator`.

    Returns:
        `(kill, step, under way, damage)` for each kill: the step that was reached, a text, and the `Damage` or None.
    """
    files, pending, records, damages = CheckpointFiles(workdir), collections.deque(kills), [], []
    damaged, owed, expected = None, 0, 0
    print(f"\n{'kill':>4}  {'started from':>12}  {'at step':>7}  what was under way, and what was damaged")
    for number in itertools.count(1):
        kill = pending.popleft() if pending else None
        with Attempt(train, workdir, workdir.with_name(f"{workdir.name}_{number:03}.log")) as attempt:
            under_way = _carry_out(kill, attempt, files, random) if kill else attempt.wait_for_end()
        started = attempt.resumed_from  # None where the run was complete
        assert started in (expected, None), f"attempt {number} started from step {started}, not {expected}"
        assert not damaged or f"ckpt-{damaged.step} is " in attempt.output, (
            f"attempt {number} printed nothing of {damaged.file.name}, {damaged.kind}"
        )
        if not kill:
            assert not owed, f"{owed} times there was no checkpoint to fall back to: use more steps"
            return records
        owed += kill.damages
        intact, damaged = _intact(files, damages), None
        if owed and kill.moment in (STEPPING, STARTING) and len(intact) > 1:
            damaged = damage(files, intact.pop(), random)
            damages.append(damaged)
            owed -= 1
        expected = max(intact, default=0)
        if under_way:
            records.append((kill, attempt.step or started, under_way, damaged))
            what = f"{under_way}; {damaged.file.name} {damaged.kind}" if damaged else under_way
            print(f"{len(records):>4}  {started:>12,}  {records[-1][1]:>7,}  {what}")
        else:  # it had saved and ended before it could be killed: the next write will do
            pending.appendleft(dataclasses.replace(kill, moment=SAVING))


def damage(files, step, random):
    """Damages one file of the checkpoint of a step in one of the ways of `KINDS`; returns the `Damage`."""
    file = files.folder / f"ckpt-{step}{random.choice(PARTS)}"
    kind = str(random.choice(list(KINDS)))
    left = KINDS[kind](file.read_bytes(), random)
    if left is None:
        file.unlink()
    else:
        file.write_bytes(left)
    return Damage(step, kind, file, left)


def _flip(content, random):
    flipped = bytearray(content)
    for i in random.choice(len(content), min(FLIPPED_BYTES, len(content)), replace=False):
        flipped[i] ^= 0xFF
    return bytes(flipped)


# Functions of the content of a file and a generator to what is left of it.
KINDS = {
    "bytes flipped": _flip,
    "truncated": lambda content, random: content[: random.integers(len(content) // 2 + 1)],
    "removed": lambda content, random: None,
}


def _intact(files, damages):
    broken = {done.step for done in damages if done.persists}
    return [step for step in files.complete() if step not in broken]


def _carry_out(kill, attempt, files, random):
    """Kills the process at its moment; returns what was under way, or None if it stopped and ended before."""
    attempt.wait_for(lambda: attempt.resumed_from is not None, "the line that says what it starts from")
    if kill.moment != STARTING:
        attempt.wait_for(lambda: attempt.step >= kill.step, f"step {kill.step}")
    if kill.moment in (STARTING, STEPPING):
        time.sleep(random.uniform(0, LONGEST_DELAY))
        attempt.kill()
        return kill.moment
    if kill.moment == STOPPING:
        attempt.send(signal.SIGTERM)
    try:
        under_way = _halt_while_saving(attempt, files, random)
    except EndedEarlyError:
        if kill.moment != STOPPING or attempt.code:
            raise
        return None
    attempt.kill()
    return f"{kill.moment}: {under_way}"


def _halt_while_saving(attempt, files, random):
    """Halts the process in the middle of writing a checkpoint; returns what shows that.

    When the folder changes, the process is halted after a short random time. New files that belong to no complete
    checkpoint, the new one half written or the oldest half removed, mean that the write is not over. If it is, the
    process goes on until the next one.
    """
    longest = LONGEST_DELAY_SAVING
    while True:
        known, before = _unfinished(files), changed_at(files.folder)
        attempt.wait_for(lambda: changed_at(files.folder) != before, "a checkpoint was being written")  # noqa: B023
        time.sleep(random.uniform(0, longest))
        attempt.halt()
        if unfinished := _unfinished(files) - known:
            newest = max(files.complete(), default="none")
            return f"{', '.join(sorted(unfinished))} (newest complete checkpoint: {newest})"
        attempt.send(signal.SIGCONT)
        longest /= 2


def _unfinished(files):
    """Returns the names of the files that belong to no complete checkpoint."""
    complete = {f"ckpt-{step}" for step in files.complete()}
    names = [path.name for path in files.folder.iterdir()] if files.folder.is_dir() else []
    return {name for name in names if name.partition(".")[0] not in complete}
