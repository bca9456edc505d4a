"""A run of Weights & Biases that never stops a run of ours, and never makes it wait but for a moment at its end.

Everything happens in a process of its own, `wandb_worker`. What is to be logged goes through a queue that never blocks:
if Weights & Biases is slower than the run for long, metrics are left out there. They are all in `metrics.jsonl`.
"""

import base64
import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time

from experiments.errors import UserError
from experiments.io import FAULTS, as_path, is_url
from experiments.training import wandb_worker

START_SECONDS = 30  # that the server has to answer in, before the run is recorded offline
FINISH_SECONDS = 30  # that the end of a run waits for
CHECK_SECONDS = 60  # that looking for an API key may take
QUEUE_LENGTH = 10_000
WORKER = (sys.executable, "-P", wandb_worker.__file__)  # -P: the modules beside it must not hide others


def check_wandb(mode):
    """Raises UserError if Weights & Biases is asked for and is not installed, or not logged in to.

    To be called when a run is new: one that goes on is never stopped.
    """
    if mode == "disabled":
        return
    if not _is_installed():
        raise UserError(
            f"wandb.mode={mode} needs the package wandb, which is not installed: pip install wandb, or leave "
            "--config.wandb.mode=disabled."
        )
    if mode == "online" and not _has_credentials():
        raise UserError(
            "wandb.mode=online needs an API key: run `wandb login` or set WANDB_API_KEY, or record the run with "
            "--config.wandb.mode=offline."
        )


def start_wandb(workdir, config, start_step, log):
    """Starts a run of Weights & Biases.

    Args:
        workdir: of the run.
        config: the `Config`.
        start_step: number of steps that are done.
        log: function that takes a line for the user.

    Returns:
        A `WandbRun`, or None if it is disabled or cannot be started.
    """
    settings = config.wandb
    if settings.mode == "disabled":
        return None
    name = settings.name or workdir.name
    arguments = {
        "project": settings.project,
        # A run that goes on is a new segment: an offline run cannot be continued.
        "name": f"{name}-from-{start_step}" if start_step else name,
        "group": name,
        "dir": None if is_url(workdir) else str(workdir),
        "config": config.to_dict(),
    }
    limits = {"init_timeout": START_SECONDS, "finish_timeout": FINISH_SECONDS - 5, "x_stats_pid": os.getpid()}
    try:
        return WandbRun({"mode": settings.mode, "arguments": arguments, "settings": limits}, log)
    except OSError as error:
        log(f"wandb cannot start ({error.strerror}): the run goes on without it.")
        return None


class WandbRun:
    """A run of Weights & Biases in a process of its own. No method raises.

    Args:
        start: first line for the worker.
        log: function that takes a line for the user.
    """

    def __init__(self, start, log):
        self._log = log
        self._left_out = 0
        self._lines = queue.Queue(QUEUE_LENGTH)
        # In a session of its own, Ctrl-C and a signal to the run's group do not end it before it has all metrics.
        self._process = subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=2, start_new_session=True)
        self._writer = threading.Thread(target=self._write, daemon=True)
        self._writer.start()
        self._put(start)

    def log(self, metrics, step):
        """Logs metrics, `{name: number}`, of a step."""
        self._put({"step": step, "metrics": metrics, "pictures": {}})

    def picture(self, name, path, step):
        """Logs a picture that lies in a file or at a URL."""
        self._put({"step": step, "metrics": {}, "pictures": {name: str(path)}})

    def finish(self):
        """Waits until all is logged, but no longer than `FINISH_SECONDS`."""
        end = time.monotonic() + FINISH_SECONDS
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=FINISH_SECONDS)
        self._writer.join(max(0.0, end - time.monotonic()))
        try:
            if self._process.wait(max(0.0, end - time.monotonic())):
                self._log("wandb broke off; metrics.jsonl has all metrics.")
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._log(f"wandb did not finish in {FINISH_SECONDS} seconds: the run ends without it.")
        if self._left_out:
            self._log(f"wandb was too slow for {self._left_out:,} lines of metrics; metrics.jsonl has them.")

    def _put(self, line):
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._left_out += 1

    def _write(self):
        pipe = self._process.stdin
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(OSError):  # the worker is gone, which `finish` tells
                pipe.write(json.dumps(_with_pictures(line)).encode() + b"\n")
                pipe.flush()
        with contextlib.suppress(OSError):
            pipe.close()


def _with_pictures(line):
    """Returns a line with the bytes of pictures in place of their paths; without those that are gone."""
    if "pictures" not in line:  # the first one
        return line
    pictures = {}
    for name, path in line["pictures"].items():
        with contextlib.suppress(*FAULTS):
            pictures[name] = base64.b64encode(as_path(path).read_bytes()).decode()
    return {**line, "pictures": pictures}


def _is_installed():
    spec = importlib.util.find_spec("wandb")
    return spec is not None and spec.origin is not None  # a folder called wandb is none


def _has_credentials():
    """Whether Weights & Biases knows an API key; also True where it cannot tell, which its start will show."""
    try:
        ended = subprocess.run((*WORKER, "--check"), capture_output=True, timeout=CHECK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return ended.returncode != wandb_worker.NO_CREDENTIALS
