"""Runs commands of several workers at once, in forks of this process, so that only it pays for importing TensorFlow.

Reads scenarios as JSON from the standard input, `[[worker, ...], ...]`; all workers of one run at once. A worker is a
dictionary of `name` and `flags` of its command, `environment`, and `at_step`: nothing, or a number of steps and the
signal that the process then sends to itself. Writes as many lists of outcomes, with the seconds that each took, the
number of batches that it evaluated and, for all, the seconds of CPU.
"""

import launch.environment  # noqa: F401, I001  (first)

import json
import os
import resource
import sys
import tempfile
import time

from experiments import finetune
from experiments.evaluation.devices import Devices
from experiments.training import pictures, run
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


def count_evaluated(file):
    """Makes this process write a line for each batch that it evaluates."""
    own_mapping = Devices.own_mapping

    def counting(*arguments):
        apply = own_mapping(*arguments)

        def counted(batches):
            for output in apply(batches):
                print("evaluated", file=file, flush=True)
                yield output

        return counted

    Devices.own_mapping = counting


def start(worker):
    """Starts a worker and returns its process and the files that it writes to."""
    output, errors, evaluated = files = [tempfile.TemporaryFile("w+") for _ in range(3)]  # noqa: SIM115  (read later)
    child = os.fork()
    if not child:
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        os.environ.update(worker["environment"])
        count_evaluated(evaluated)
        if worker["at_step"]:
            send_signal_at(*worker["at_step"])
        os._exit(run_as_main(worker["name"], worker["flags"]))
    return child, files


def outcomes(scenario):
    """Runs the workers of a scenario to their ends."""
    began, found = time.monotonic(), {}
    started = [start(worker) for worker in scenario]
    for _ in started:
        child, status = os.wait()
        found[child] = (os.waitstatus_to_exitcode(status), time.monotonic() - began)
    results = []
    for child, files in started:
        for file in files:
            file.seek(0)
        output, errors, evaluated = (file.read() for file in files)
        code, seconds = found[child]
        batches = evaluated.count("evaluated")
        results.append({"code": code, "output": output, "errors": errors, "seconds": seconds, "batches": batches})
    return results


def leave_out_drawing():
    """Leaves empty files where runs draw, which takes a third of their time."""
    finetune.augmented_examples = lambda *_: True
    finetune.draw_augmentation = finetune.draw_confusion = lambda path, *_: path.touch()
    pictures.draw_curves = lambda workdir: (workdir / "curves.png").touch()
    pictures.draw_reconstructions = lambda path, *_: path.touch()


if __name__ == "__main__":
    leave_out_drawing()
    results = [outcomes(scenario) for scenario in json.load(sys.stdin)]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    json.dump({"outcomes": results, "cpu_seconds": used.ru_utime + used.ru_stime}, sys.stdout)
