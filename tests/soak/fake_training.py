"""Stands for a training run in tests of the harness: quick, with output and files of the same form."""

import json
import signal
import sys
import time

from experiments.training.checkpoint import CheckpointFiles
from experiments.training.loggers import METRICS

STEPS, EVERY, KEEP = 80, 5, 3
SECONDS_OF_A_STEP, SECONDS_OF_A_FILE = 0.004, 0.05
LEAK = 2**16  # bytes a step


def train(workdir, fault=""):
    """Trains in a workdir.

    Args:
        workdir: path.
        fault: `forgetful` starts from step 0 whatever is there, `trusting` does not look for damage, `silent` does not
            print it, `leaking` keeps `LEAK` bytes a step, `failing` raises an error.
    """
    if fault == "failing":
        raise MemoryError("no memory")
    files, stop, kept = CheckpointFiles(workdir), [], []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    files.folder.mkdir(parents=True, exist_ok=True)
    start = _resume(files, fault)
    print("  starts from   " + (f"its own checkpoint of step {start:,}" if start else "random weights"), flush=True)
    metrics = workdir / METRICS
    lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)[:start] if metrics.exists() else []
    metrics.write_text("".join(lines), encoding="utf-8")
    for step in range(start + 1, STEPS + 1):
        time.sleep(SECONDS_OF_A_STEP)
        kept.append(bytearray(b"x" * LEAK) if fault == "leaking" else None)
        with open(metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step}) + "\n")
        if stop or step % EVERY == 0:
            save(files, step)
        if stop:
            sys.exit(0)
    time.sleep(0.5)  # a run writes its results


def _resume(files, fault):
    if fault == "forgetful":
        return 0
    damaged = [] if fault == "trusting" else [*files.unfinished(), *filter(files.damage, files.complete())]
    if fault != "silent":
        print("\n".join(f"checkpoint {files.prefix(step)} is damaged" for step in damaged))
    return max(set(files.complete()) - set(damaged), default=0)


def save(files, step):
    """Writes a checkpoint, slowly, and removes the oldest."""
    files.remove(step)
    for part in (".data-00000-of-00001", ".index"):
        (files.folder / f"ckpt-{step}{part}").write_bytes(f"{step}{part}".encode() * 100)
        time.sleep(SECONDS_OF_A_FILE)
    files.seal(step)
    files.prune(step, KEEP)
