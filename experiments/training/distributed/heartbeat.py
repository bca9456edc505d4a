"""If a worker is lost, the others exit within a minute, with a message.

TensorFlow notices a lost worker late, with various errors, or not at all. So each worker connects every few seconds to
the ports of the others, which TensorFlow holds open. A worker that hangs still accepts connections; TensorFlow's own
heartbeats detect that.
"""

import concurrent.futures
import contextlib
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import tensorflow as tf

from experiments.errors import Interrupted, RunError
from experiments.training.distributed.cluster import Cluster

BETWEEN_PROBES, PROBE_TIMEOUT = 2.0, 5.0  # seconds
LOST_AFTER = 8.0  # seconds without an answer
GRACE = 5.0  # seconds for the main thread to end by itself
STOPPED = "Stopped with the other workers; run the same command to resume from the last checkpoint."
# TensorFlow raises these if a collective operation cannot be completed.
COLLECTIVE_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


class Heartbeat:
    """Context in which the loss of another worker ends this one: with a `RunError` or, if the main thread hangs in a
    collective operation, by exiting with code 1.

    Args:
        cluster: the `Cluster`.
        latest_checkpoint: function without arguments that returns which checkpoint to resume from, as part of a
            sentence.
    """

    def __init__(self, cluster: Cluster, latest_checkpoint: Callable[[], str]) -> None:
        self._others = [index for index in range(len(cluster.addresses)) if index != cluster.index]
        self._cluster = cluster
        self._latest_checkpoint = latest_checkpoint
        self._addresses: dict[int, list[Any]] = {}
        self._answered: dict[int, float] = {}
        self._lost: list[int] = []
        self._ends_process = True
        self._is_stopping = False
        self._found = threading.Event()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        now = time.monotonic()
        self._answered = dict.fromkeys(self._others, now)
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, COLLECTIVE_ERRORS) and not self._over.is_set():
            self._found.wait(0.0 if self._is_stopping else LOST_AFTER + 2 * PROBE_TIMEOUT)
            self.end()
            if self._is_stopping:
                raise Interrupted(STOPPED) from error
            if self._found.is_set() or "ollective" in str(error):
                raise RunError(self._message(str(error))) from error
        self.end()

    def end(self) -> None:
        """Stops the checks: from here on the other workers may exit."""
        self._over.set()

    def only_chief(self) -> None:
        """Checks only the chief from here on; its loss no longer ends the process, but makes `check` raise."""
        self._others = [index for index in self._others if index == 0]
        self._ends_process = False

    def let_chief_leave(self) -> None:
        """Called when all workers have agreed to stop: if the chief then exits, so does this worker, without error."""
        self._is_stopping = True

    @property
    def has_lost(self) -> bool:
        return self._found.is_set()

    def check(self) -> None:
        """Raises RunError if a worker is lost."""
        if self.has_lost:
            raise RunError(self._message())

    def _run(self) -> None:
        while not self._over.wait(BETWEEN_PROBES):
            self._lost = self._probe(list(self._others))
            if self._lost:
                self._found.set()
                if not self._over.wait(GRACE) and self._ends_process:
                    print(STOPPED if self._is_stopping else f"error: {self._message()}", file=sys.stderr, flush=True)
                    os._exit(0 if self._is_stopping else 1)
                return

    def _probe(self, indices: Sequence[int]) -> list[int]:
        """Connects to workers in parallel; returns those that have not answered for `LOST_AFTER` seconds."""
        with concurrent.futures.ThreadPoolExecutor(max(1, len(indices))) as pool:
            answers = dict(zip(indices, pool.map(self._answers, indices)))
        now = time.monotonic()
        self._answered.update({index: now for index, has_answered in answers.items() if has_answered})
        return [index for index in indices if now - self._answered[index] > LOST_AFTER]

    def _answers(self, index: int) -> bool:
        with contextlib.suppress(OSError):
            if index not in self._addresses:  # looked up once: a failing name server is not a lost worker
                host, port = self._cluster.endpoint(index)
                self._addresses[index] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family, kind, _, _, address in self._addresses[index]:
                with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
                    probe.settimeout(PROBE_TIMEOUT)
                    probe.connect(address)
                    return True
        return False

    def _message(self, failure: str = "") -> str:
        """Names the workers that do not answer; if all do, those in TensorFlow's message."""
        named = {int(number) for number in re.findall(r"/task:(\d+)", failure)} & set(self._others)
        names = " and ".join(self._cluster.name(index) for index in self._lost or sorted(named)) or "another worker"
        return (
            f"Lost the connection to {names}; {self._latest_checkpoint()}. See the log of that worker, and "
            "restart all workers with the same command."
        )
