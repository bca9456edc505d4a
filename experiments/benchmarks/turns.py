"""Contenders in processes of their own, which take turns.

In one process the threads of two frameworks would share the cores, and nobody could say which of them needs how much
memory. A process that waits for its turn waits at a pipe and takes no time.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from experiments.benchmarks.settings import PYTORCH
from experiments.errors import RunError

ROOT = pathlib.Path(__file__).parents[2]

# Processes share a GPU, so none may take all of its memory beforehand; nothing here needs more than one process.
ENVIRONMENT = {
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}


class Worker:
    """The process of one contender, from its first step to its last turn; a context manager.

    Args:
        settings: `StepSettings`.
        ratio: one of their mask ratios.
        execution: one of their executions.

    Attributes:
        opening: what the process says of itself after its warmup, see `experiments.benchmarks.worker`.

    Raises:
        RunError: if the process ends before its time; what it wrote is shown.
    """

    def __init__(self, settings, ratio, execution):
        self._name = execution
        self._written = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (closed by `close`)
        backend = "torch" if execution == PYTORCH else settings.backend
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {"KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(paths), **ENVIRONMENT}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._written,
            text=True,
            env={**os.environ, **variables},
        )
        try:
            task = {"settings": dataclasses.asdict(settings), "ratio": ratio, "execution": execution}
            self.opening = self._ask(task)
        except BaseException:
            self.close()
            raise

    def steps(self):
        """Has the contender take its turn; returns what `worker.timed_steps` does."""
        return self._ask("steps")

    def matrix_product(self):
        """Returns the operations a second of a large matrix product."""
        return self._ask("matrix_product")["flops_per_second"]

    def _ask(self, request):
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise self._failure()
        return json.loads(answer)

    def _failure(self):
        code = self._process.wait()
        self._written.seek(0)
        sys.stderr.write(self._written.read())
        reason = f"was killed by signal {-code}, by lack of memory perhaps" if code < 0 else f"ended with code {code}"
        return RunError(f"The process of {self._name} {reason}.")

    def close(self):
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._written.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if error[0] is not None:
            self._process.kill()  # it may be in the midst of steps
        self.close()
