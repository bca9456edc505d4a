"""A process with the pipelines of one kind in it, `python -m experiments.benchmarks.pipeline.worker`.

The first request names settings, files and kind; each one after it a contender, whose turn it is.
"""

import json
import os

from experiments.benchmarks.load import OthersLoad
from experiments.benchmarks.pipeline.contenders import PillowPipelines, TensorFlowPipelines
from experiments.benchmarks.pipeline.settings import PILLOW, InputSettings
from experiments.benchmarks.serving import serve_standard_input


def serve(requests, answer):
    """Makes the pipelines, and has them take their turns.

    Args:
        requests: iterator over texts of JSON.
        answer: function that takes a dictionary.
    """
    task = json.loads(next(requests))
    settings = InputSettings(**task["settings"])
    # Before TensorFlow is imported, which makes its threads for the cores that it may use.
    if settings.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings.cores])
    cores = len(os.sched_getaffinity(0))
    if task["kind"] == PILLOW:
        pipelines = PillowPipelines(settings, task["paths"], cores)
    else:
        pipelines = TensorFlowPipelines(settings, task["paths"])
    answer({"cores": cores})
    for request in requests:
        load = OthersLoad()
        seconds, core_seconds, elsewhere = pipelines.run(json.loads(request))
        answer({"seconds": seconds, "core_seconds": core_seconds, "others_cores": load.cores(elsewhere)})
    if task["kind"] == PILLOW:
        pipelines.close()


if __name__ == "__main__":
    serve_standard_input(serve)
