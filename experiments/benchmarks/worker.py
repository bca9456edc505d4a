"""A process with one contender in it, `python -m experiments.benchmarks.worker`; `turns.Worker` is its other end.

It reads lines of JSON from its standard input and answers each with one on its standard output: first what to make,
then what to do, until the input ends. What a framework prints goes to the standard error.
"""

import json
import time

from experiments.benchmarks.contenders import contender_class
from experiments.benchmarks.contenders.without import take_back
from experiments.benchmarks.load import OthersLoad
from experiments.benchmarks.memory import resident_peak
from experiments.benchmarks.serving import serve_standard_input
from experiments.benchmarks.settings import StepSettings

# Large enough for the best rate of the device.
CPU_MATRIX_SIZE = 2048
DEVICE_MATRIX_SIZE = 8192
MATRIX_SECONDS = 0.3  # for which the product is repeated, about


def serve(requests, answer):
    """Makes the contender that the first request names, and does what the others ask for.

    Args:
        requests: iterator over texts of JSON.
        answer: function that takes a dictionary.
    """
    task = json.loads(next(requests))
    settings = StepSettings(**task["settings"])
    execution, without = settings.contenders[task["contender"]]
    cls = contender_class(settings.backend, execution)
    take_back(without)
    after_import = resident_peak()
    started = time.perf_counter()
    contender = cls(settings, task["ratio"], execution)
    before_steps = resident_peak()
    first_loss = contender.run(1)
    first_step = time.perf_counter() - started
    contender.run(settings.warmup - 1)
    memory = {
        "resident_after_import": after_import,
        "resident_before_first_step": before_steps,
        "resident_peak": resident_peak(),
        "device_peak": contender.device_peak(),
    }
    product = MatrixProduct(contender)
    answer(
        {
            "device": contender.device,
            "note": contender.note,
            "first_loss": first_loss,
            "seconds_until_first_step": first_step,
            "memory": memory,
            "matrix_size": product.size,
        }
    )
    actions = {"steps": lambda: timed_steps(contender, settings.steps), "matrix_product": product.flops_per_second}
    for request in requests:
        answer(actions[json.loads(request)]())


def timed_steps(contender, steps):
    """Takes steps; returns the seconds they took together, the last loss, and the cores that others kept busy."""
    load, started = OthersLoad(), time.perf_counter()
    loss = contender.run(steps)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "loss": loss, "others_cores": load.cores()}


class MatrixProduct:
    """The rate at which a contender's framework and device multiply large matrices.

    Args:
        contender: a `Contender`.
    """

    def __init__(self, contender):
        self.size = CPU_MATRIX_SIZE if contender.device == "CPU" else DEVICE_MATRIX_SIZE
        self._multiply = contender.matrix_product(self.size)
        self._multiply(1)
        self._times = max(1, round(MATRIX_SECONDS / self._seconds(1)))

    def _seconds(self, times):
        started = time.perf_counter()
        self._multiply(times)
        return time.perf_counter() - started

    def flops_per_second(self):
        """Returns `{"flops_per_second": rate}`."""
        return {"flops_per_second": 2 * self.size**3 * self._times / self._seconds(self._times)}


if __name__ == "__main__":
    serve_standard_input(serve)
