"""A real run as a process of its own, and what can be seen of it from outside: its files and its output."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

from experiments.errors import RunError, UserError
from experiments.io import local_path
from experiments.training.tracking import METRICS

DETERMINISTIC = {"TF_DETERMINISTIC_OPS": "1"}  # what TensorFlow reads
ROOT = pathlib.Path(__file__).parents[2]
SECONDS_BETWEEN_LOOKS = 0.002
TAIL = 8192  # bytes of the metrics that are read to find the newest line
# What a run says when it has restored what it goes on from, and nothing else has been written yet.
START = re.compile(r"^  starts from   (?:its own checkpoint of step ([\d,]+)|.*)\n", re.MULTILINE)


class EndedEarlyError(RunError):
    """A process ended before what was waited for came."""


class Command:
    """Starts `python -m launch.TASK` again and again.

    Args:
        task: `pretrain` or `finetune`.
        preset: path of its configuration.
        start: function of the task, its flags and the descriptor of a file for the output, that starts the command and
            returns the process; None for one like any other.
    """

    def __init__(self, task, preset, start=None):
        self._task = task
        self._preset = preset
        self._start = start or start_command

    def __call__(self, workdir, log):
        """Starts the run in a workdir; what it writes goes to the file `log`. Returns the process."""
        flags = [f"--config={self._preset.absolute()}", f"--workdir={workdir.absolute()}"]
        with open(log, "wb") as output:
            return self._start(self._task, flags, output.fileno())


def start_command(task, flags, output):
    """Starts `python -m launch.TASK FLAGS` with the operations of TensorFlow told to be deterministic."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", f"launch.{task}", *flags],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **DETERMINISTIC},
    )


def write_preset(path, config):
    """Writes a `Config` as a preset."""
    path.write_text(
        '"""The configuration of this test."""\n\n'
        "from experiments.config import Config\n\n\n"
        "def get_config():\n"
        '    """Returns the preset."""\n'
        f"    return Config.from_dict({config.to_dict()!r}).to_config_dict()\n",
        encoding="utf-8",
    )
    return path


class Attempt:
    """One process of a run, from its start to its end; a context manager that leaves no process behind.

    Args:
        start: function of workdir and log that starts the process.
        workdir: of the run.
        log: file for what the process writes.

    Attributes:
        process: with `pid`, `poll` and `wait`.
    """

    def __init__(self, start, workdir, log):
        self._metrics, self._log = workdir / METRICS, log
        self._metrics_before = changed_at(self._metrics)
        self.process = start(workdir, log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def output(self):
        """What the process has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def resumed_from(self):
        """The step that the process goes on from, 0 for the beginning; None as long as it has not said so."""
        found = START.search(self.output)
        return int((found[1] or "0").replace(",", "")) if found else None

    @property
    def step(self):
        """The newest step that this process has logged, 0 as long as it has logged none."""
        if changed_at(self._metrics) == self._metrics_before:
            return 0  # the lines of the process before it, perhaps of steps that will be done again
        return last_step(self._metrics)

    def wait_for(self, condition, what):
        """Waits until a condition, a function without arguments, holds.

        Raises:
            EndedEarlyError: if the process ends before.
        """
        while not condition():
            if self.process.poll() is not None:
                raise EndedEarlyError(
                    f"The run ended with code {self.process.returncode} before {what}:{self.last_lines()}"
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def wait_for_end(self):
        """Waits until the run is complete.

        Raises:
            RunError: if it ends with an error.
        """
        code = self.process.wait()
        if code:
            raise RunError(f"The run ended with code {code}:{self.last_lines()}")

    def last_lines(self):
        """Returns the end of what the process wrote, for a message."""
        return " ".join(["", *self.output.splitlines()[-5:]])


def last_step(metrics):
    """Returns the step of the last whole line of a run's metrics, 0 if there is none."""
    try:
        with open(metrics, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    whole = [line for line in lines if line.startswith(b"{") and line.endswith(b"}\n")]
    return json.loads(whole[-1])["step"] if whole else 0


def new_folder(path):
    """Makes the folder of a test and returns it.

    Raises:
        UserError: if it holds something already.
    """
    folder = local_path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--workdir={folder} exists already: name a new folder for the runs of this test.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def changed_at(path):
    """Returns when a file or folder was last changed, in nanoseconds; None if there is none."""
    return path.stat().st_mtime_ns if path.exists() else None
