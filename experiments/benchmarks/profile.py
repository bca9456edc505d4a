"""Where the time of a training step goes: the operations of TensorFlow, as its own profiler counts them."""

import collections
import dataclasses
import pathlib
import tempfile

from experiments.benchmarks.contenders import contender_class
from experiments.benchmarks.report import opening_lines
from experiments.errors import UserError
from experiments.provenance import provenance
from fcmae.encoder import EXECUTIONS

COMPILED = "compiled chains"
# What the profiler calls a run of a function that XLA has compiled.
COMPILED_RUN = "CpuExecutable::ExecuteAsyncOnStream"
SHOWN = 20


def run(settings, log=print):
    """Profiles training steps of the Keras model, and prints a table for each mask ratio and execution.

    Args:
        settings: `StepSettings`, of backend `tensorflow`.
        log: function that takes a line for the user.

    Returns:
        Everything measured, as plain values.

    Raises:
        UserError: if the settings name something that has no operations of TensorFlow.
    """
    if settings.backend != "tensorflow" or set(settings.execution) - set(EXECUTIONS) or settings.without:
        raise UserError(
            "--what=profile shows TensorFlow's operations: use --backend=tensorflow, sparse or dense, and no --without."
        )
    results = {"what": "profile", "settings": dataclasses.asdict(settings), **provenance(), "tables": []}
    for line in opening_lines(settings, results):
        log(line)
    for ratio in settings.mask_ratio:
        for execution in settings.execution:
            operations = profile(settings, ratio, execution)
            results["tables"].append({"mask_ratio": ratio, "execution": execution, "operations": operations})
            for line in _table_lines(ratio, execution, operations):
                log(line)
    return results


def profile(settings, ratio, execution):
    """Returns `{operation: {"milliseconds": ..., "calls": ...}}` of one step, the longest first.

    The milliseconds are the durations of the operations. Operations run beside each other, so they may sum to more than
    the step takes; one that uses several cores counts once.
    """
    import tensorflow as tf

    contender = contender_class("tensorflow", execution)(settings, ratio, execution)
    contender.run(settings.warmup)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            contender.run(settings.steps)
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        events = _events(file.read_bytes())
    seconds, calls = collections.Counter(), collections.Counter()
    for operation, duration in events:
        seconds[operation] += duration
        calls[operation] += 1
    return {
        operation: {
            "milliseconds": 1e3 * duration / settings.steps,
            "calls": calls[operation] / settings.steps,
        }
        for operation, duration in seconds.most_common()
    }


def _events(trace):
    """Yields `(operation, seconds)` of a trace of the profiler."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    for plane in xplane_pb2.XSpace.FromString(trace).planes:
        if not plane.name.startswith("/host:CPU"):
            continue
        names = {key: _operation(metadata.name) for key, metadata in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                if operation := names[event.metadata_id]:
                    yield operation, event.duration_ps * 1e-12


def _operation(event):
    """Returns the operation of an event called `node:Operation#details#`, or an empty text for other events."""
    if event.startswith(COMPILED_RUN):
        return COMPILED
    node, _, operation = event.rpartition(":")
    # The whole step is an event as well, and so is what the runtime does between operations.
    is_operation = node and "::" not in event and not operation.strip().startswith("__inference")
    return operation.partition("#")[0].strip() if is_operation else ""


def _table_lines(ratio, execution, operations):
    total = sum(figures["milliseconds"] for figures in operations.values())
    shown = list(operations.items())[:SHOWN]
    rest = total - sum(figures["milliseconds"] for _, figures in shown)
    return [
        f"{execution}, mask ratio {ratio:g}: durations of operations, in milliseconds a step",
        f"  {'':<40} {'ms':>8} {'share':>7} {'calls':>6}",
        *(
            f"  {name:<40} {figures['milliseconds']:8.2f} {figures['milliseconds'] / total:7.1%}"
            f" {figures['calls']:6.0f}"
            for name, figures in shown
        ),
        f"  {'all others':<40} {rest:8.2f} {rest / total:7.1%}",
    ]
