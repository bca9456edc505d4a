"""A training command in a process of its own, and what its files and its output show of it."""

import contextlib
import json
import multiprocessing
import os
import pathlib
import re
import signal
import sys
import time

from experiments.training.loggers import METRICS
from tests.launch.forked import run_as_main

POLL, DEADLINE = 0.002, 600  # seconds
TAIL = 8192  # bytes of the metrics that are read to find the newest line
# Printed once a run has restored its checkpoint, before it writes anything.
START = re.compile(r"^  starts from   (?:its own checkpoint of step ([\d,]+)|.*)\n", re.MULTILINE)
# Forks of a server that has imported TensorFlow and computed nothing start seconds sooner.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.launch.forked"])


class EndedEarlyError(AssertionError):
    """A process ended before what was waited for came."""


def launch(task, preset, workdir):
    """Runs `python -m launch.TASK` in this process, with deterministic operations of TensorFlow."""
    os.environ["TF_DETERMINISTIC_OPS"] = "1"
    multiprocessing.set_start_method(None, force=True)  # that of a new interpreter, not of a child of the server
    sys.exit(run_as_main(task, [f"--config={preset}", f"--workdir={workdir}"]))


def write_preset(path, config):
    """Writes a `Config` as a preset."""
    path.write_text(
        "from experiments.config import Config\n\n\n"
        f"def get_config():\n    return Config.from_dict({config.to_dict()!r}).to_config_dict()\n",
        encoding="utf-8",
    )
    return path


class Attempt:
    """One process of a run, from its start to its end; a context manager that leaves no process behind.

    Args:
        train: picklable function of a workdir that trains there.
        workdir: of the run.
        log: file for what the process prints.
    """

    def __init__(self, train, workdir, log):
        self._metrics, self._log = workdir / METRICS, log
        self._metrics_before = changed_at(self._metrics)
        self._process = FORKS.Process(target=_train, args=(train, workdir, log), daemon=True)
        self._process.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def output(self):
        """What the process has printed so far."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    @property
    def resumed_from(self):
        """The step that the process starts from, 0 for the beginning; None until it has printed it."""
        found = START.search(self.output)
        return int((found[1] or "0").replace(",", "")) if found else None

    @property
    def step(self):
        """The newest step that this process has logged, 0 as long as it has logged none."""
        if changed_at(self._metrics) == self._metrics_before:
            return 0  # the lines of the process before it, perhaps of steps that will be done again
        return last_step(self._metrics)

    @property
    def code(self):
        """The exit code, None while the process runs."""
        return self._process.exitcode

    @property
    def resident(self):
        """Bytes of memory that the process has resident, 0 when it has ended."""
        return int((self._proc("statm").split() or [0, 0])[1]) * os.sysconf("SC_PAGE_SIZE")

    def wait_for(self, condition, what):
        """Waits until a condition, a function without arguments, holds.

        Raises:
            EndedEarlyError: if the process ends before.
        """
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if self.code is not None:
                raise EndedEarlyError(f"The run ended with code {self.code} before {what}: {self.output[-2000:]}")
            assert time.monotonic() < deadline, f"No {what} after {DEADLINE} s: {self.output[-2000:]}"
            time.sleep(POLL)

    def wait_for_end(self):
        """Waits until the run is complete; fails if that was with an error."""
        self._process.join(DEADLINE)
        assert self.code == 0, f"The run ended with code {self.code}: {self.output[-2000:]}"

    def send(self, number):
        """Sends a signal to the process; none to one that has ended, which `wait_for` notices."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def kill(self):
        """Ends the process at once."""
        self._process.kill()
        self._process.join()

    def halt(self):
        """Stops the process where it is, until SIGCONT."""
        self.send(signal.SIGSTOP)
        while self.code is None and self._proc("stat").rpartition(")")[2].split()[:1] not in (["T"], []):
            time.sleep(POLL / 10)

    def _proc(self, name):
        try:
            return pathlib.Path(f"/proc/{self._process.pid}/{name}").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            return ""


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


def changed_at(path):
    """Returns when a file or folder was last changed, in nanoseconds; None if it does not exist."""
    return path.stat().st_mtime_ns if path.exists() else None


def _train(train, workdir, log):
    with open(log, "wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    train(workdir)
