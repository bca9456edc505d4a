"""The loss of a worker ends the others within a minute, with a message.

TensorFlow notices after a while, in one of several ways, and sometimes not at all. So each worker checks every few
seconds whether the ports of the others, which TensorFlow holds open, still answer. A worker that hangs answers; for
that TensorFlow has heartbeats of its own.
"""

import concurrent.futures
import contextlib
import os
import re
import socket
import sys
import threading
import time

import tensorflow as tf

from experiments.errors import Interrupted, RunError

BETWEEN_PROBES, PROBE_TIMEOUT = 2.0, 5.0  # seconds
LOST_AFTER = 8.0  # seconds without an answer
GRACE = 5.0  # seconds in which the main thread may end by itself
STOPPED = "Stopped with the other workers; the same command goes on from the last checkpoint."
# What TensorFlow raises where a collective operation cannot be completed.
COLLECTIVE_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


class Heartbeat:
    """Context in which the loss of another worker ends this one, with a `RunError` or, where the main thread is caught
    in an operation that never ends, by ending the process with exit code 1.

    Args:
        cluster: the `Cluster`.
        latest_checkpoint: function without arguments that returns words on what there is to go on from.
    """

    def __init__(self, cluster, latest_checkpoint):
        self._watched = [index for index in range(len(cluster.addresses)) if index != cluster.index]
        self._cluster = cluster
        self._latest_checkpoint = latest_checkpoint
        self._addresses = {}
        self._answered = {}
        self._lost = []
        self._ends_process = True
        self._is_stopping = False
        self._found = threading.Event()
        self._over = threading.Event()

    def __enter__(self):
        now = time.monotonic()
        self._answered = dict.fromkeys(self._watched, now)
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, COLLECTIVE_ERRORS) and not self._over.is_set():
            self._found.wait(0.0 if self._is_stopping else LOST_AFTER + 2 * PROBE_TIMEOUT)
            self.end()
            if self._is_stopping:
                raise Interrupted(STOPPED) from error
            if self._found.is_set() or "ollective" in str(error):
                raise RunError(self._message(str(error))) from error
        self.end()

    def end(self):
        """Stops watching: from here on the workers may leave when they like."""
        self._over.set()

    def only_chief(self):
        """Watches the chief alone from here on, and leaves it to `check` to end this worker."""
        self._watched = [index for index in self._watched if index == 0]
        self._ends_process = False

    def let_chief_leave(self):
        """From here on, when all have agreed to stop, a chief that is gone has done so, and this worker does."""
        self._is_stopping = True

    @property
    def has_lost(self):
        """Whether a worker is lost."""
        return self._found.is_set()

    def check(self):
        """Raises RunError if a worker is lost."""
        if self.has_lost:
            raise RunError(self._message())

    def _run(self):
        while not self._over.wait(BETWEEN_PROBES):
            self._lost = self._probe(list(self._watched))
            if self._lost:
                self._found.set()
                if not self._over.wait(GRACE) and self._ends_process:
                    print(STOPPED if self._is_stopping else f"error: {self._message()}", file=sys.stderr, flush=True)
                    os._exit(0 if self._is_stopping else 1)
                return

    def _probe(self, indices):
        """Asks workers, all at the same time, and returns those that have not answered for too long."""
        with concurrent.futures.ThreadPoolExecutor(max(1, len(indices))) as pool:
            answers = dict(zip(indices, pool.map(self._answers, indices)))
        now = time.monotonic()
        self._answered.update({index: now for index, has_answered in answers.items() if has_answered})
        return [index for index in indices if now - self._answered[index] > LOST_AFTER]

    def _answers(self, index):
        with contextlib.suppress(OSError):
            if index not in self._addresses:  # looked up once: a host whose name is not found any more is not lost
                host, port = self._cluster.endpoint(index)
                self._addresses[index] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family, kind, _, _, address in self._addresses[index]:
                with contextlib.suppress(OSError), socket.socket(family, kind) as probe:
                    probe.settimeout(PROBE_TIMEOUT)
                    probe.connect(address)
                    return True
        return False

    def _message(self, failure=""):
        """Names the workers that do not answer; if all do, those that TensorFlow's words name."""
        named = {int(number) for number in re.findall(r"/task:(\d+)", failure)} & set(self._watched)
        names = " and ".join(self._cluster.name(index) for index in self._lost or sorted(named)) or "another worker"
        return (
            f"The connection to {names} is lost; {self._latest_checkpoint()}. See what that worker said last, and "
            "start all workers again with the same command."
        )
