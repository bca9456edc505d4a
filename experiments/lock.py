"""The lock of a folder that is written to, which prevents a second process from using it."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from experiments.errors import UserError
from experiments.io import StorageError, is_url, reason
from experiments.types import Log, Path

LOCK = "run.lock"
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def sole_use_of(folder: Path, log: Log, flag: str = "--workdir") -> Iterator[None]:
    """Context in which one process alone writes to a folder, which is created if it is missing.

    The operating system releases the lock when the process ends, however it ends. For a URL, or on a file system
    without locks, a line says that there is no lock. A folder that was created here and is empty at the end is removed.

    Args:
        folder: path or URL.
        log: function that takes a line for the user.
        flag: that names the folder.

    Raises:
        UserError: if another process uses the folder; it names the process.
        StorageError: if the folder cannot be written to.
    """
    if is_url(folder):
        log(f"{folder} cannot be locked: make sure that no other run uses it")
        yield
        return
    made = _make_folders(folder, flag)
    try:
        with _locked(folder / LOCK, log, flag):
            yield
    finally:
        with contextlib.suppress(OSError):  # not empty, as they should be
            for one in reversed(made):
                one.rmdir()


def _make_folders(folder: pathlib.Path, flag: str) -> list[pathlib.Path]:
    """Makes the folder and its missing parents; returns what was made, the topmost first."""
    try:
        missing = [one for one in (folder, *folder.absolute().parents) if not one.exists()][::-1]
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # the latter of a name with a zero byte
        raise UserError(f"{flag}={folder} cannot be created: {reason(error)}.") from error
    return missing


@contextlib.contextmanager
def _locked(path: pathlib.Path, log: Log, flag: str) -> Iterator[None]:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{flag}={path.parent} cannot be written to: {reason(error)}.") from error
    try:
        is_locked = _lock(file, path, log, flag)
        try:
            if is_locked:
                _sign(file, path)
            yield
        finally:
            with contextlib.suppress(OSError):
                if _is_same_file(file, path):  # the folder may have been replaced, and be in use by another run
                    path.unlink()
    finally:
        os.close(file)


def _lock(file: int, path: pathlib.Path, log: Log, flag: str) -> bool:
    """Locks the file; returns False where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(f"{path.parent} is in use by {_holder(file)}: wait for it, or use another {flag}.") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise StorageError(f"{path} cannot be locked: {reason(error)}.") from error
        log(f"{path.parent} cannot be locked ({reason(error)}): make sure that no other run uses it")
        return False
    if not _is_same_file(file, path):  # removed by the run that held the lock
        raise UserError(f"{path.parent} was in use by a run that has just ended: run the command again.")
    return True


def _is_same_file(file: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _sign(file: int, path: pathlib.Path) -> None:
    """Writes host, process and time into the lock file."""
    since = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    text = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": since})
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, text.encode() + b"\n", 0)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {reason(error)}.") from error


def _holder(file: int) -> str:
    """Returns the process that holds the lock, as its file names it."""
    try:
        record = json.loads(os.pread(file, 4096, 0))
        return f"process {record['process']} on {record['host']}, since {record['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"
