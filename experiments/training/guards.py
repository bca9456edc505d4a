"""What protects a run: signals, the lock of its workdir, the check for non-finite values, best-effort output."""

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import math
import os
import signal
import socket
import threading

import numpy as np

from experiments.data.pipeline import examples_of_batch
from experiments.errors import Interrupted, RunError, UserError
from experiments.io import FAULTS, StorageError, is_url, reason, remove
from experiments.training.workdir import write_json

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

    def question(self):
        """Returns what goes into the next training step: nothing, as there is no other worker to agree with."""

    def take_answer(self, answer):
        """Takes the answer of the other workers, of which there are none."""

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


LOCK = "run.lock"
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def only_run_in(workdir, log):
    """Context in which no other run can use a workdir; makes the folder if it is missing.

    The operating system lets go of the lock when its process ends, however it ends. A file system without locks, and a
    URL, are used without one, and a line says so. A folder that this made, and that still holds nothing, is removed.

    Args:
        workdir: of the run.
        log: function that takes a line for the user.

    Raises:
        UserError: if another run uses the folder; it says which one.
        StorageError: if the folder cannot be written to.
    """
    if is_url(workdir):
        log(f"{workdir} has no lock: let no other run use it")
        yield
        return
    made = _make_folders(workdir)
    try:
        with _locked(workdir / LOCK, log):
            yield
    finally:
        with contextlib.suppress(OSError):  # they hold something, as they should
            for folder in reversed(made):
                folder.rmdir()


def _make_folders(workdir):
    """Makes the folder and those above it; returns those that were missing, the uppermost first."""
    missing = [folder for folder in (workdir, *workdir.absolute().parents) if not folder.exists()][::-1]
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be made: {reason(error)}.") from error
    return missing


@contextlib.contextmanager
def _locked(path, log):
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"--workdir={path.parent} cannot be written to: {reason(error)}.") from error
    try:
        is_locked = _lock(file, path, log)
        try:
            if is_locked:
                _sign(file, path)
            yield
        finally:
            with contextlib.suppress(OSError):
                if _is_same_file(file, path):  # not that of a run in a folder that was made anew
                    path.unlink()
    finally:
        os.close(file)


def _lock(file, path, log):
    """Returns whether the file is locked now; False where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"{path.parent} is in use by {_holder(file)}: wait for it, or name another --workdir."
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise StorageError(f"{path} cannot be locked: {reason(error)}.") from error
        log(f"{path.parent} has no lock ({reason(error)}): let no other run use it")
        return False
    if not _is_same_file(file, path):  # the run that held the lock has ended just now, and removed its file
        raise UserError(f"{path.parent} was in use until just now: start again.")
    return True


def _is_same_file(file, path):
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _sign(file, path):
    """Writes down who holds the lock."""
    since = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    text = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": since})
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode() + b"\n", 0)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {reason(error)}.") from error


def _holder(file):
    """Returns who holds the lock, as far as it is written down."""
    try:
        record = json.loads(os.pread(file, 4096, 0))
        return f"process {record['process']} on {record['host']}, since {record['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


RECORD = "nonfinite.json"
SHOWN = 3
ADVICE = "A lower base_learning_rate, a longer warmup or clip_norm may help."


class Divergence:
    """Watches over the numbers of a run.

    What is not finite at a step came of its own batch, or of the step before: of a gradient that was not finite while
    the loss still was. So `nonfinite.json` in the workdir names the images of both.

    Args:
        run: the `Run`; a record of an earlier attempt in its workdir is removed.
    """

    def __init__(self, run):
        self._path = run.workdir / RECORD
        self._split = run.split
        self._variables = run.model.trainable_variables
        self._batch_size = run.training.batch_size
        self._steps_per_epoch = run.schedule.steps_per_epoch
        self._seed = run.config.seed
        self._is_recorded = run.workers.is_chief  # which alone writes into the workdir
        if self._is_recorded:
            remove(self._path)

    def check_losses(self, losses, step, last_good):
        """Looks at losses that have been read from the device.

        Args:
            losses: of consecutive steps, a list of numbers.
            step: the last of these steps.
            last_good: function without arguments that returns what there is to go on from, as a part of a sentence.

        Raises:
            RunError: if one of them is not finite. It names the first of them.
        """
        for at, loss in enumerate(losses, step - len(losses) + 1):
            if not math.isfinite(loss):
                self._stop(f"The loss is {loss} at step {at:,}", at, loss, last_good)

    def check_weights(self, loss, step, last_good):
        """Looks at the weights, before they are saved as good ones.

        Args:
            loss: of the step that has been taken.
            step: its number.
            last_good: function without arguments that returns what there is to go on from, as a part of a sentence.

        Raises:
            RunError: if a weight is not finite.
        """
        for variable in self._variables:
            if not np.isfinite(variable.numpy()).all():
                what = f"{variable.path} is not finite after step {step:,}, whose loss is {loss}"
                self._stop(what, step, loss, last_good)

    def _stop(self, what, step, loss, last_good):
        found = f"; {self._record(step, loss)}" if self._is_recorded else ""
        raise RunError(f"{what}; {last_good()}{found}. {ADVICE}")

    def _record(self, step, loss):
        """Writes the images down; returns what to say of it."""
        batches = [self._batch(at) for at in range(max(1, step - 1), step + 1)]
        try:
            write_json(self._path, {"step": step, "loss": str(loss), "batches": batches})  # JSON has no nan
        except StorageError as error:
            return str(error).rstrip(".")
        names = [os.path.basename(example["name"]) for example in batches[-1]["examples"] if "name" in example]
        shown = f" ({', '.join(names[:SHOWN])}, ...)" if names else ""
        return f"{self._path} names the images of that step{shown} and of the one before"

    def _batch(self, step):
        epoch, batch = divmod(step - 1, self._steps_per_epoch)
        first = batch * self._batch_size
        examples = examples_of_batch(self._split, self._batch_size, self._seed, step)
        positions = range(first, first + self._batch_size)
        return {
            "step": step,
            "epoch": epoch,
            "examples": [{"position": position, **example} for position, example in zip(positions, examples)],
        }


@contextlib.contextmanager
def best_effort(path):
    """Context in which a file that cannot be written is a warning: days of training are worth more than it.

    Checkpoints and models are not written in it: without them the run ends.

    Args:
        path: of the file.
    """
    try:
        yield
    except (*FAULTS, StorageError) as error:
        why = str(error) if isinstance(error, StorageError) else f"{path} cannot be written: {reason(error)}."
        logging.getLogger("experiments").warning("%s The run goes on.", why)


def ignoring_broken_pipe(log):
    """Returns a function that takes a line for the user, and goes on where it cannot be written.

    That is so where the reader of a pipe has left, or the disk of a log file is full.

    Args:
        log: function that takes a line, and may raise OSError.
    """

    def write(line):
        with contextlib.suppress(OSError):
            log(line)

    return write
