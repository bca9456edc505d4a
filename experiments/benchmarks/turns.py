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

from experiments.benchmarks.contenders.without import variables
from experiments.benchmarks.settings import PYTORCH
from experiments.errors import RunError

ROOT = pathlib.Path(__file__).parents[2]

# Processes share a GPU, so none may take all of its memory beforehand; nothing here needs more than one process.
ENVIRONMENT = {
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}


class ContenderProcess:
    """The process of one contender, from its making to its last turn; a context manager.

    Args:
        name: of the contender, for messages.
        module: that the process runs; it reads lines of JSON and answers each with one.
        task: what to make, the first line.
        variables: of the environment.

    Attributes:
        opening: what the process answers to its task.

    Raises:
        RunError: if the process ends before its time; what it wrote is shown.
    """

    def __init__(self, name, module, task, variables):
        self._name = name
        self._written = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (closed by `close`)
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._written,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables},
        )
        try:
            self.opening = self.ask(task)
        except BaseException:
            self.close()
            raise

    def ask(self, request):
        """Sends a request and returns the answer to it, both plain values."""
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


class Worker(ContenderProcess):
    """The process of a contender that takes training steps, see `experiments.benchmarks.worker`.

    Args:
        settings: `StepSettings`.
        ratio: one of their mask ratios.
        name: of one of their contenders.
    """

    def __init__(self, settings, ratio, name):
        execution, without = settings.contenders[name]
        backend = "torch" if execution == PYTORCH else settings.backend
        task = {"settings": dataclasses.asdict(settings), "ratio": ratio, "contender": name}
        environment = {"KERAS_BACKEND": backend, **ENVIRONMENT, **variables(without)}
        super().__init__(name, "experiments.benchmarks.worker", task, environment)

    def steps(self):
        """Has the contender take its turn; returns what `worker.timed_steps` does."""
        return self.ask("steps")

    def matrix_product(self):
        """Returns the operations a second of a large matrix product."""
        return self.ask("matrix_product")["flops_per_second"]
