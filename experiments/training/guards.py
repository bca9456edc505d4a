"""Guards of a run: signals, non-finite values, lack of memory, output that cannot be written."""

import contextlib
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
import tensorflow as tf

from experiments.data.pipeline import examples_of_batch
from experiments.errors import Interrupted, RunError
from experiments.io import FAULTS, StorageError, reason, remove
from experiments.training.checkpoint import Checkpoints
from experiments.training.workdir import write_json
from experiments.types import Log, Path

if TYPE_CHECKING:
    from experiments.training.run import Run

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STDOUT = 1
AFTER_DESTRUCTOR = 0.05  # seconds
TOO_LATE = "Stopped after the last step; run the same command to resume."


class Interruption:
    """Context in which SIGTERM and SIGINT (Ctrl-C) ask the run to stop after the current step.

    A second signal ends the process at once, with exit code 143 or 130. If a signal arrives after the last step, the
    context raises Interrupted at its end.

    Attributes:
        requested: whether a signal came.
    """

    def __init__(self) -> None:
        self.requested = False
        self._handling = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._handling.enter_context(_handler(self._request))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handling.close()
        if self.requested and error is None:
            raise Interrupted(TOO_LATE)

    def release(self) -> None:
        """Called before the run stops; see `Agreement`, which replaces this class if there are several workers."""

    def question(self) -> None:
        """Returns None: there is no other worker to ask."""

    def take_answer(self, answer: tf.Tensor | None) -> None:
        """Ignores the answer: there is no other worker."""

    def _request(self, number: int, _: FrameType | None) -> None:
        self.requested = True
        name = signal.Signals(number).name
        # Not `print`, which the signal may have interrupted.
        with contextlib.suppress(OSError):  # the reader of a pipe may have exited at the same Ctrl-C
            os.write(STDOUT, f"{name}: stopping after this step and saving; a second signal exits at once\n".encode())


def stopping_at_once() -> contextlib.AbstractContextManager[None]:
    """Returns a context in which SIGTERM and SIGINT raise Interrupted: outside of training there is nothing to save.

    No file is left half-written. A second signal ends the process at once.
    """
    return _handler(_stop)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    raise Interrupted(f"Stopped by {signal.Signals(number).name} outside of training; run the same command to resume.")


@contextlib.contextmanager
def _raising_again() -> Iterator[None]:
    """Context in which an Interrupted that came while Python ran a destructor, which drops it, is raised once more."""
    previous, alarm, dropped = sys.unraisablehook, signal.getsignal(signal.SIGALRM), []

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if unraisable.exc_type is not Interrupted:
            previous(unraisable)
            return
        dropped.append(str(unraisable.exc_value))
        signal.signal(signal.SIGALRM, raise_again)
        signal.setitimer(signal.ITIMER_REAL, AFTER_DESTRUCTOR)

    def raise_again(*_: Any) -> None:
        if dropped:
            raise Interrupted(dropped[-1])

    sys.unraisablehook = hook
    try:
        yield
        raise_again()
    finally:
        sys.unraisablehook = previous
        if dropped:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, alarm)


@contextlib.contextmanager
def _handler(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Context in which a function handles the signals; does nothing in other threads than the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _ending_at_second_signal(), _raising_again():
        previous = {number: signal.signal(number, handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def _ending_at_second_signal() -> Iterator[None]:
    """Context in which a second signal ends the process, even while a step hangs."""
    # Python runs handlers only when the main thread returns from native code; a thread reads this socket at once.
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    previous = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_at_second, args=(receiver,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        sender.close()  # which ends the thread


def _end_at_second(receiver: socket.socket) -> None:
    count = 0
    with receiver:
        while number := receiver.recv(1):
            count += number[0] in SIGNALS
            if count == 2:
                os._exit(128 + number[0])


RECORD = "nonfinite.json"
SHOWN = 3
OVERFLOWS = 3  # skipped steps in a row whose loss is not finite
ADVICE = "A lower base_learning_rate, a longer warmup or clip_norm may help."


class Divergence:
    """Ends a run whose loss or weights are not finite.

    The cause is the batch of that step, or the previous batch, whose gradient may not have been finite although its
    loss was. So `nonfinite.json` in the workdir lists the images of both.

    Args:
        run: the `Run`; a record of an earlier attempt in its workdir is removed.
        checkpoints: the `Checkpoints` of the run.
    """

    def __init__(self, run: "Run", checkpoints: Checkpoints) -> None:
        self._run, self._checkpoints = run, checkpoints
        self._checked = 0
        self._overflows: list[tuple[int, float]] = []
        self._path = run.workdir / RECORD
        if run.workers.is_chief:  # which alone writes into the workdir
            remove(self._path)

    def check_losses(self, losses: Sequence[float], skipped: Sequence[bool], step: int) -> None:
        """Checks losses that have been read from the device; those of steps that it has seen are passed over.

        A loss that is not finite may be an overflow of float16 in one batch, for which the step was skipped. It ends
        the run if several batches in a row have it.

        Args:
            losses: of consecutive steps, a list of numbers.
            skipped: whether each of these steps was skipped.
            step: the last of these steps.

        Raises:
            RunError: if the loss of a step that was taken, or of `OVERFLOWS` steps in a row, is not finite; the message
                names the first such step.
        """
        for at, loss, was_skipped in zip(range(step - len(losses) + 1, step + 1), losses, skipped):
            if at <= self._checked:
                continue
            self._checked = at
            self._overflows = [] if math.isfinite(loss) else [*self._overflows, (at, loss)]
            if self._overflows and (not was_skipped or len(self._overflows) == OVERFLOWS):
                first, loss = self._overflows[0]
                self._stop(f"The loss is {loss} at step {first:,}", first, loss)

    def check_weights(self, loss: float, step: int) -> None:
        """Checks the weights before they are saved.

        Args:
            loss: of the step that has been taken.
            step: its number.

        Raises:
            RunError: if a weight is not finite.
        """
        for variable in self._run.model.trainable_variables:
            if not np.isfinite(variable.numpy()).all():
                what = f"{variable.path} is not finite after step {step:,}, whose loss is {loss}"
                self._stop(what, step, loss)

    def _stop(self, what: str, step: int, loss: float) -> NoReturn:
        found = f"; {self._record(step, loss)}" if self._run.workers.is_chief else ""
        raise RunError(f"{what}; {self._checkpoints.last_good}{found}. {ADVICE}")

    def _record(self, step: int, loss: float) -> str:
        """Writes `nonfinite.json`; returns the part of the message about it."""
        batches = [self._batch(at) for at in range(max(1, step - 1), step + 1)]
        try:
            write_json(self._path, {"step": step, "loss": str(loss), "batches": batches})  # JSON has no nan
        except StorageError as error:
            return str(error).rstrip(".")
        names = [os.path.basename(example["name"]) for example in batches[-1]["examples"] if "name" in example]
        shown = f" ({', '.join(names[:SHOWN])}, ...)" if names else ""
        return f"{self._path} lists the images of that step{shown} and of the one before"

    def _batch(self, step: int) -> dict[str, Any]:
        run, size = self._run, self._run.training.batch_size
        epoch, batch = divmod(step - 1, run.schedule.steps_per_epoch)
        examples = examples_of_batch(run.split, size, run.config.seed, step)
        positions = range(batch * size, (batch + 1) * size)
        return {
            "step": step,
            "epoch": epoch,
            "examples": [{"position": position, **example} for position, example in zip(positions, examples)],
        }


@contextlib.contextmanager
def naming_lack_of_memory(run: "Run", checkpoints: Checkpoints) -> Iterator[None]:
    """Context in which running out of memory, on a device or the host, ends the run with advice.

    Args:
        run: the `Run`.
        checkpoints: the `Checkpoints` of the run.

    Raises:
        RunError: in place of the error about memory.
    """
    try:
        yield
    except (MemoryError, tf.errors.OpError) as error:
        text = str(error).lower()
        if not isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)) and "out of memory" not in text:
            raise
        raise RunError(f"Out of memory: {_less_memory(run)} {_sentence(checkpoints.last_good)}") from error


def _less_memory(run: "Run") -> str:
    """Returns the batch sizes of a run, and the flags that make them smaller."""
    training, section = run.training, run.training.section
    share, parts = training.batch_size // run.workers.strategy.num_replicas_in_sync, training.accumulation_steps
    finer = next((count for count in range(parts + 1, share + 1) if share % count == 0), None)
    flags = [f"--config.{section}.accumulation_steps={finer}"] if finer else []
    flags += ["--config.model.remat=block"] if run.config.model.remat != "block" else []
    flags += [f"a smaller --config.{section}.batch_size (with --resume=anyway)"] if training.batch_size > 1 else []
    return (
        f"a device trains on {share // parts} images at a time and evaluates {run.evaluation_batch_size}. Use "
        f"{' or '.join(flags)}; if evaluation ran out of memory, use a smaller --config.evaluation_batch_size."
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


@contextlib.contextmanager
def best_effort(path: Path) -> Iterator[None]:
    """Best-effort output: in this context a file that cannot be written is a warning, and training continues.

    Not for checkpoints and models: if these cannot be written, the run must end.

    Args:
        path: of the file.
    """
    try:
        yield
    except (*FAULTS, StorageError) as error:
        why = str(error) if isinstance(error, StorageError) else f"{path} cannot be written: {reason(error)}."
        logging.getLogger("experiments").warning("%s Training continues.", why)


def ignoring_broken_pipe(log: Log) -> Log:
    """Returns `log` without its errors: the reader of a pipe may have exited, or the disk of a log file may be full.

    Args:
        log: function that takes a line, and may raise OSError.
    """

    def write(line: str) -> None:
        with contextlib.suppress(OSError):
            log(line)

    return write
