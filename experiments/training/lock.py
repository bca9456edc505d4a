"""One run at a time in a workdir."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket

from experiments.errors import UserError
from experiments.io import StorageError, is_url, reason

LOCK = "run.lock"
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def only_run_in(workdir, say):
    """Context in which no other run can use a workdir; makes the folder if it is missing.

    The operating system lets go of the lock when its process ends, however it ends. A file system without locks, and a
    URL, are used without one, and a line says so. A folder that this made, and that still holds nothing, is removed.

    Args:
        workdir: of the run.
        say: function that takes a line for the user.

    Raises:
        UserError: if another run uses the folder; it says which one.
        StorageError: if the folder cannot be written to.
    """
    if is_url(workdir):
        say(f"{workdir} has no lock: let no other run use it")
        yield
        return
    made = _make_folders(workdir)
    try:
        with _locked(workdir / LOCK, say):
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
def _locked(path, say):
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"--workdir={path.parent} cannot be written to: {reason(error)}.") from error
    try:
        is_locked = _lock(file, path, say)
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


def _lock(file, path, say):
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
        say(f"{path.parent} has no lock ({reason(error)}): let no other run use it")
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
