"""Stopping on request, without losing a step."""

import contextlib
import os
import signal
import socket
import threading

from experiments.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STDOUT = 1
TOO_LATE = "Stopped after the last step; the same command goes on from there."


class Interruption:
    """Context in which SIGTERM and SIGINT (Ctrl-C) ask the run to stop after the current step.

    A second signal ends the process at once, with exit code 143 or 130. The context ends with Interrupted if a signal
    came that nothing in it took note of.

    Attributes:
        requested: whether a signal came.
    """

    def __init__(self):
        self.requested = False
        self._handling = contextlib.ExitStack()

    def __enter__(self):
        self._handling.enter_context(_handler(self._request))
        return self

    def __exit__(self, kind, error, traceback):
        self._handling.close()
        if self.requested and error is None:
            raise Interrupted(TOO_LATE)

    def release(self):
        """Called when a step was read after which the run stops: what follows needs no other worker."""

    def _request(self, number, _):
        self.requested = True
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
    raise Interrupted(f"Stopped by {signal.Signals(number).name} outside of the steps; the same command goes on.")


@contextlib.contextmanager
def _handler(handle):
    """Context in which a function takes the signals, if this is the main thread, which alone can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _ending_at_second_signal():
        previous = {number: signal.signal(number, handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _ending_at_second_signal():
    """Context in which a second signal ends the process, even while a step hangs.

    Handlers wait for the main thread to come back to Python. The numbers of the signals do not: they go to a socket at
    once, which a thread reads.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    previous = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_at_second, args=(heard,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        told.close()  # which ends the thread


def _end_at_second(heard):
    count = 0
    with heard:
        while number := heard.recv(1):
            count += number[0] in SIGNALS
            if count == 2:
                os._exit(128 + number[0])
