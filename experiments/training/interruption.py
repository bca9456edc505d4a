"""Stopping on request, without losing a step."""

import signal
import threading


class Interruption:
    """Context in which SIGTERM and SIGINT (Ctrl-C) ask the run to stop after the current step.

    A second signal stops the process at once.

    Attributes:
        requested: whether a signal came.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.requested = False
        self._previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._request) for number in self.SIGNALS}
        return self

    def __exit__(self, *_):
        self._restore()

    def _request(self, *_):
        self.requested = True
        self._restore()

    def _restore(self):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
