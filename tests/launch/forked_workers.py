"""Runs commands of several workers at once, in forks of this process, so that only it pays for importing TensorFlow.

Reads scenarios as JSON from the standard input, `[[worker, ...], ...]`; all workers of one run at once. A worker is a
dictionary of `name` and `flags` of its command, `environment`, and `at_step`: nothing, or a number of steps and the
signal that the process then sends to itself. Writes as many lists of outcomes, with the seconds that each took and, for
all, the seconds of CPU.
"""

import launch.environment  # noqa: F401, I001  (first)

import json
import os
import resource
import sys
import tempfile
import time

from experiments import finetune
from experiments.training import run
from tests.launch.forked import run_as_main


def send_signal_at(step, number):
    """Makes this process send itself a signal when it has taken so many steps."""
    make_training_step = run.make_training_step

    def make(*arguments):
        training_step, taken = make_training_step(*arguments), 0

        def counted(*arguments):
            nonlocal taken
            if taken == step:
                os.kill(os.getpid(), number)
            taken += 1
            return training_step(*arguments)

        return counted

    run.make_training_step = make


def start(worker):
    """Starts a worker and returns its process and the files that it writes to."""
    output, errors = (tempfile.TemporaryFile("w+") for _ in range(2))  # noqa: SIM115  (open until they are read)
    child = os.fork()
    if not child:
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        os.environ.update(worker["environment"])
        if worker["at_step"]:
            send_signal_at(*worker["at_step"])
        os._exit(run_as_main(worker["name"], worker["flags"]))
    return child, output, errors


def outcomes(scenario):
    """Runs the workers of a scenario to their ends."""
    began, found = time.monotonic(), {}
    started = [start(worker) for worker in scenario]
    for _ in started:
        child, status = os.wait()
        found[child] = (os.waitstatus_to_exitcode(status), time.monotonic() - began)
    results = []
    for child, output, errors in started:
        output.seek(0)
        errors.seek(0)
        code, seconds = found[child]
        results.append({"code": code, "output": output.read(), "errors": errors.read(), "seconds": seconds})
    return results


def leave_out_drawing():
    """Leaves empty files where fine-tuning draws, which takes a third of its time."""
    finetune.augmented_examples = lambda *_: True
    finetune.draw_augmentation = finetune.draw_confusion = lambda path, *_: path.touch()


if __name__ == "__main__":
    leave_out_drawing()
    results = [outcomes(scenario) for scenario in json.load(sys.stdin)]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    json.dump({"outcomes": results, "cpu_seconds": used.ru_utime + used.ru_stime}, sys.stdout)
