"""What the benchmarks share: candidates that take turns in processes of their own, statistics, load, report lines.

In one process the threads of two frameworks would share the cores, and their memory could not be told apart. A process
that waits for its turn waits at a pipe and takes no time.
"""

import contextlib
import itertools
import json
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from experiments.errors import RunError

ROOT = pathlib.Path(__file__).parents[2]
BUSY_CORES = 0.2  # taken by other processes, from which on a turn is spoiled


class Worker:
    """A candidate in a process of its own; a context manager.

    Args:
        name: of the candidate, for messages.
        module: run as `python -m MODULE`; it calls `serve`.
        task: what to make, plain values.
        environment: variables, beside those of this process.

    Attributes:
        opening: the answer to the task.

    Raises:
        RunError: if the process ends before its time; what it wrote is shown.
    """

    def __init__(self, name: str, module: str, task: dict[str, Any], environment: dict[str, str]) -> None:
        self._name = name
        self._written = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  (closed by `close`)
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process: Any = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._written,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        )
        try:
            self.opening = self.ask(task)
        except BaseException:
            self.close()
            raise

    def ask(self, request: dict[str, Any] | str) -> dict[str, Any]:
        """Sends a request and returns the answer to it, both plain values."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise self._failure()
        return json.loads(answer)

    def _failure(self) -> RunError:
        code = self._process.wait()
        self._written.seek(0)
        sys.stderr.write(self._written.read())
        reason = f"was killed by signal {-code}, perhaps for lack of memory" if code < 0 else f"ended with code {code}"
        return RunError(f"The process of {self._name} {reason}.")

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._written.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._process.kill()  # it may be in the midst of steps
        self.close()


def serve(start: Callable[[dict], tuple[dict, Callable]]) -> None:
    """Answers a `Worker` from inside its process until it closes: lines of JSON in, lines of JSON out.

    What a framework prints goes to the standard error.

    Args:
        start: function of the task that returns the opening and the function from a request to its answer.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    opening, respond = start(json.loads(sys.stdin.readline()))
    print(json.dumps(opening), file=answers, flush=True)
    for request in iter(sys.stdin.readline, ""):
        print(json.dumps(respond(json.loads(request))), file=answers, flush=True)


def take_turns(workers: Mapping[str, Worker], rounds: int) -> dict[str, list[dict]]:
    """Asks each worker for its candidate's turn, round after round, so that other load affects all of them.

    Returns:
        `{candidate: answers}`, one per round.
    """
    turns: dict[str, list[dict]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            turns[name].append(worker.ask(name))
    return turns


def summarize(values: Iterable[float]) -> dict[str, Any]:
    """Returns `{smallest, lower_quartile, median, upper_quartile, largest, rounds}` of values, one per round."""
    values, names = list(values), ("smallest", "lower_quartile", "median", "upper_quartile", "largest")
    return dict(zip(names, np.percentile(values, (0, 25, 50, 75, 100)).tolist())) | {"rounds": values}


def speed_ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Compares candidates two by two, each time within one round, under the same load of the machine.

    Args:
        seconds: `{candidate: seconds of a turn, one per round}`.

    Returns:
        `{"a/b": ratios}` for each pair, the earlier candidate first: how many times as fast as b is a, as `summarize`
        puts it.
    """
    return {
        f"{first}/{second}": summarize(slow / fast for fast, slow in zip(seconds[first], seconds[second]))
        for first, second in itertools.combinations(seconds, 2)
    }


class OthersLoad:
    """Measures since construction how many cores other processes keep busy."""

    def __init__(self) -> None:
        self._busy, self._own, self._started = _busy_seconds(), time.process_time(), time.perf_counter()

    def cores(self, helpers_seconds: float = 0.0) -> float | None:
        """Returns how many cores other processes, and the machine's own host, kept busy on average; None if unknown.

        The system counts in hundredths of a second, so of turns shorter than a second this says little.

        Args:
            helpers_seconds: for which processes of one's own have worked since then.
        """
        if self._busy is None:
            return None
        others = (_busy_seconds() - self._busy) - (time.process_time() - self._own) - helpers_seconds  # type: ignore[operator]
        return max(0.0, others / (time.perf_counter() - self._started))


def _busy_seconds() -> float | None:
    """Returns the seconds that all processors together have worked, or None where Linux does not say."""
    try:
        with open("/proc/stat", encoding="utf-8") as file:
            user, nice, system, _idle, _waiting, *interrupts_and_stolen = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + sum(interrupts_and_stolen)) / os.sysconf("SC_CLK_TCK")


def resident_peak() -> int:
    """Returns the largest number of bytes of memory that this process has had at once.

    Linux's own mark of the process is read where there is one: `ru_maxrss` of a new process starts from what its
    parent had when it started it.
    """
    with contextlib.suppress(OSError):
        status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
        if match := re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE):
            return int(match[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def heading_lines(title: str, facts: dict[str, str], results: Mapping[str, Any]) -> list[str]:
    """Returns the lines above a table: what is measured, and, of `provenance()` in `results`, on and with what."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    changes = " and uncommitted changes" if results["uncommitted_changes"] else ""
    facts = facts | {
        "cpu": f"{results['hardware']['cpu']}, {results['hardware']['cores']} cores",
        "versions": versions,
        "commit": f"{results['commit'] or 'unknown'}{changes}",
    }
    return [title, *(f"  {name:<9} {fact}" for name, fact in facts.items())]


def table_lines(columns: Iterable[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the lines of a table: a row a candidate, columns as wide as what is in them."""
    cells = [["", *columns], *([name, *values] for name, values in rows.items())]
    first, *others = [max(map(len, column)) for column in zip(*cells)]
    return [
        f"  {name:<{first}}" + "".join(f"  {value:>{width}}" for value, width in zip(values, others))
        for name, *values in cells
    ]


def spread(figures: Mapping[str, float], form: str) -> str:
    """Returns the text of a median with the smallest and the largest."""
    return f"{figures['median']:{form}} ({figures['smallest']:{form}} - {figures['largest']:{form}})"


def load_lines(candidates: Mapping[str, dict[str, Any]]) -> list[str]:
    """Returns the line that tells how busy the machine was with other things, where that is known.

    Args:
        candidates: `{candidate: figures}` with `others_cores`, one per round.
    """
    loads = [load for figures in candidates.values() for load in figures["others_cores"] if load is not None]
    if not loads:
        return []
    advice = "; measure again when nothing else runs" if max(loads) > BUSY_CORES else ""
    return [
        f"  other processes: {statistics.median(loads):.2f} cores in the median turn, {max(loads):.2f} at most{advice}"
    ]
