"""Stopping on request, without losing a step."""

import contextlib
import os
import signal
import threading

from experiments.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STDOUT = 1


class Interruption:
    """Context in which SIGTERM and SIGINT (Ctrl-C) ask the run to stop after the current step.

    A second signal ends the process at once: a shell shows exit code 143 or 130. In a step that hangs neither is heard.

    Attributes:
        requested: whether a signal came.
    """

    def __init__(self):
        self.requested = False
        self._handling = contextlib.ExitStack()

    def __enter__(self):
        self._handling.enter_context(_handler(self._request))
        return self

    def __exit__(self, *_):
        self._handling.close()

    def _request(self, number, _):
        self.requested = True
        _end_at_next_signal()
        name = signal.Signals(number).name
        # Not `print`, which may be what the signal came into.
        with contextlib.suppress(OSError):  # who reads it may have left at the same Ctrl-C
            os.write(
                STDOUT, f"{name}: the run stops and saves after this step; another signal ends it at once\n".encode()
            )


def stopping_at_once():
    """Returns a context in which SIGTERM and SIGINT raise Interrupted: outside of the steps there is nothing to save.

    What is being written then is left out whole. A second signal ends the process at once.
    """
    return _handler(_stop)


def _stop(number, _):
    _end_at_next_signal()
    raise Interrupted(f"Stopped by {signal.Signals(number).name} outside of the steps; the same command goes on.")


def _end_at_next_signal():
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _handler(handle):
    """Context in which a function takes the signals, if this is the main thread, which alone can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
