"""Kills a real run again and again, and compares what it comes to with a run that nothing happened to."""

import dataclasses
import time

import numpy as np

from experiments.circumstances import circumstances
from experiments.errors import UserError
from experiments.reliability.comparison import compare_runs
from experiments.reliability.damage import complete_steps, damage
from experiments.reliability.kills import SAVING, STOPPING, carry_out, draw_kills
from experiments.reliability.process import Attempt, Command, EndedEarlyError, last_step, new_folder, write_preset
from experiments.reliability.report import header, row
from experiments.training.checkpoints import FOLDER
from experiments.training.tracking import METRICS

UNDISTURBED, KILLED = "undisturbed", "killed"


def run(config, settings, folder, start=None, say=print):
    """Runs a task twice: once to its end, and once with kills on the way.

    Args:
        config: the `Config`.
        settings: the `SoakSettings`.
        folder: path of a new folder for both runs and for what they write to the terminal.
        start: function that starts a command, see `process.Command`; None for one like any other.
        say: function that takes a line for the user.

    Returns:
        All that was found, for a file: `settings`, `kills` (a dictionary each), `compared` (how many of what),
        `findings` (a line for each difference; none if all is well), `seconds` and the circumstances.

    Raises:
        UserError: if the folder is not new, the run is too short for so many kills, or its checkpoints are too few.
        RunError: if a run ends with an error.
    """
    if not config.checkpoint_every:
        raise UserError("checkpoint_every=0 leaves no steps at which a checkpoint is due: use 1 or more.")
    if settings.damages and config.keep_checkpoints < 2:
        raise UserError("keep_checkpoints=1 leaves nothing to fall back to: use 2 or more, or --damages=0.")
    began = time.perf_counter()
    began_in, folder = circumstances(), new_folder(folder)
    start = Command(settings.task, write_preset(folder / "preset.py", config), start)
    say("undisturbed run")
    with Attempt(start, folder / UNDISTURBED, folder / f"{UNDISTURBED}.log") as attempt:
        attempt.wait_for_end()
    total_steps = last_step(folder / UNDISTURBED / METRICS)
    kills = draw_kills(settings, total_steps, config.checkpoint_every)
    soak = _Soak(folder, start, np.random.default_rng(settings.seed + 1), say)
    soak.run(kills)
    compared, differences = compare_runs(folder / UNDISTURBED, folder / KILLED)
    return {
        "what": "kills",
        "settings": dataclasses.asdict(settings),
        "config": config.to_dict(),
        "steps": total_steps,
        "kills": soak.records,
        "compared": compared,
        "findings": soak.findings + differences,
        "seconds": time.perf_counter() - began,
        **began_in,
    }


class _Soak:
    """The run that is killed."""

    def __init__(self, folder, start, random, say):
        self._workdir, self._logs = folder / KILLED, folder
        self._checkpoints = self._workdir / FOLDER
        self._start, self._random, self._say = start, random, say
        self._damages = []
        self._owed = 0  # damages that had to wait for a checkpoint to fall back to
        self._expected = 0  # step that the next attempt must at least go on from
        self._newest_damage = None  # that the next attempt must tell of
        self.records, self.findings = [], []

    def run(self, kills):
        self._say(f"run that is killed {len(kills)} times")
        self._say(header())
        for kill in kills:
            self._kill(kill)
        with self._attempt() as attempt:
            attempt.wait_for_end()
            self._check_start(attempt)
        if self._owed:
            self.findings.append(f"{self._owed} times there was no checkpoint to damage: use more steps.")

    def _attempt(self):
        number = len(list(self._logs.glob(f"{KILLED}_*.log")))
        return Attempt(self._start, self._workdir, self._logs / f"{KILLED}_{number:03}.log")

    def _kill(self, kill):
        with self._attempt() as attempt:
            try:
                under_way = carry_out(kill, attempt, self._checkpoints, self._random)
            except EndedEarlyError:
                if kill.moment != STOPPING or attempt.process.returncode:
                    raise
                # It was faster: it had saved and ended before it could be caught. The next write will do.
                return self._kill(dataclasses.replace(kill, moment=SAVING))
            resumed_from = self._check_start(attempt)
            reached = attempt.step or resumed_from
        damaged = self._newest_damage = self._damage(kill)
        self.records.append(
            {
                "moment": kill.moment,
                "step": reached,
                "under_way": under_way,
                "damage": damaged and f"{damaged.file.name} {damaged.kind}",
                "resumed_from": resumed_from,
            }
        )
        self._expected = max(self._intact(), default=0)
        self._say(row(len(self.records), self.records[-1]))

    def _check_start(self, attempt):
        """Returns the step that an attempt went on from; one before the newest sound checkpoint is a finding."""
        resumed_from = attempt.resumed_from  # None where the run was complete
        if resumed_from is not None and resumed_from < self._expected:
            self.findings.append(
                f"After kill {len(self.records)} the run went on from step {resumed_from}, with a sound checkpoint of "
                f"step {self._expected}."
            )
        damaged = self._newest_damage
        if damaged and f"ckpt-{damaged.step} is " not in attempt.output:
            self.findings.append(
                f"After kill {len(self.records)} the run said nothing of {damaged.file.name}, {damaged.kind}."
            )
        return resumed_from

    def _intact(self):
        """Returns the steps of the checkpoints that a process can go on from."""
        broken = {done.step for done in self._damages if done.persists}
        return [step for step in complete_steps(self._checkpoints) if step not in broken]

    def _damage(self, kill):
        """Damages the newest checkpoint, if it is time to and there is one to fall back to; returns what was done."""
        self._owed += kill.damages
        intact = self._intact()
        if not self._owed or kill.moment in (SAVING, STOPPING) or len(intact) < 2:
            return None
        self._owed -= 1
        self._damages.append(damage(self._checkpoints, intact[-1], self._random))
        return self._damages[-1]
