"""Runs commands as a person does: `python -m launch.NAME` in the root of the repository."""

import atexit
import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).parents[2]

PRESET = '''"""A few steps on digits."""

from experiments.config import Config, DataConfig, FinetuneConfig, ModelConfig, PretrainConfig


def get_config():
    """Returns the preset."""
    training = {"steps": 4, "batch_size": 32, "warmup_epochs": 0, "evaluations": 1}
    return Config(
        model=ModelConfig(depths=(1,), dims=(4,), stem_stride=8, decoder_dim=8),
        data=DataConfig(image_size=32, channels=1, mean=(0.3,), std=(0.35,), flip=False, evaluation_crop=1.0),
        pretrain=PretrainConfig(**training, pictures=1),
        finetune=FinetuneConfig(**training, labels="10 per class"),
        log_every=2,
    ).to_config_dict()
'''


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended: exit code, and what it wrote."""

    code: int
    output: str
    errors: str

    @property
    def lines(self):
        return self.output.splitlines()


def run(name, *flags, during=None):
    """Runs `python -m launch.NAME FLAGS` to its end and returns an `Outcome`.

    Args:
        name: of the command.
        *flags: its flags.
        during: function of the process, called while it runs.
    """
    process = _start(f"launch.{name}", *map(str, flags))
    try:
        if during:
            during(process)
        output, errors = process.communicate(timeout=240)
    finally:
        process.kill()
    return Outcome(process.returncode, output, errors)


def run_forked(commands, folder=ROOT):
    """Runs commands one after the other, in forks of one process that has imported what all of them import.

    Args:
        commands: `{key: (name, flags)}`.
        folder: in which they run.

    Returns:
        `{key: Outcome}`.
    """
    server = _server()
    timer = threading.Timer(600, server.kill)
    timer.start()
    print(json.dumps({"folder": str(folder), "commands": list(commands.values())}), file=server.stdin, flush=True)
    output = server.stdout.readline()
    timer.cancel()
    assert output, server.communicate()[1]
    return {key: Outcome(**outcome) for key, outcome in zip(commands, json.loads(output), strict=True)}


@functools.cache
def _server():
    """The process that `run_forked` talks to, which ends with this one."""
    server = _start("tests.launch.forked", stdin=subprocess.PIPE)
    atexit.register(server.communicate)
    return server


def _start(module, *arguments, **options):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_", "PYTHON"))
    }
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def terminate_after(path, num_lines):
    """Returns a function that sends SIGTERM to a process when the file at `path` has so many lines.

    Before, it takes what the process has written so far, and fails if that is nothing.
    """

    def wait(process):
        while process.poll() is None:
            if path.exists() and len(path.read_text(encoding="utf-8").splitlines()) >= num_lines:
                os.set_blocking(process.stdout.fileno(), False)
                seen = os.read(process.stdout.fileno(), 4096)  # raises where nothing is there
                os.set_blocking(process.stdout.fileno(), True)
                assert b"workdir" in seen
                process.send_signal(signal.SIGTERM)
                return
            time.sleep(0.02)

    return wait
