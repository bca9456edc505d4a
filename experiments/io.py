"""Local paths and URLs such as `gs://bucket/run`, and atomic writes to them.

An error of the storage (a full disk, a folder that is gone or read-only) ends with one line instead of a traceback.
"""

import contextlib
import errno
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf
from etils import epath

from convnext.weights.loader import IN_FOLDER, PretrainedError
from experiments.errors import RunError, UserError
from experiments.types import Path

# What reading and writing raise: Python's own, and TensorFlow's for URLs and checkpoints.
FAULTS = (OSError, tf.errors.OpError)
BLOCK = 1 << 22  # bytes that are read at a time
TEMPORARY = ".unfinished-"  # what the names of files begin with while they are written


class StorageError(RunError):
    """A file of a run cannot be written, or its folder cannot be read."""


def as_path(path: str | os.PathLike[str]) -> Path:
    """Returns a `pathlib.Path`, or for a URL an `etils.epath.Path` of the same methods.

    Raises:
        UserError: if TensorFlow has no file system for the URL, or cannot write the name.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{os.fsencode(str(path))!r}: the name is not valid UTF-8, which TensorFlow needs.") from error
    if not is_url(path):
        return local_path(path)
    try:
        return epath.Path(str(path))
    except KeyError as error:
        raise UserError(f"{path}: use a local path, or a URL such as gs://bucket/run.") from error


def local_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns a `pathlib.Path`; `~` is the user's home.

    Raises:
        UserError: if that is unknown.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: the home folder of that user is unknown.") from error


def local_folder(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the `local_path` of a folder.

    Raises:
        UserError: if there is none.
    """
    folder = local_path(path)
    if not os.path.isdir(folder):  # which raises no error, whatever the path
        raise UserError(f"There is no folder {folder}.")
    return folder


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


def reason(error: Exception) -> str:
    """Returns the cause of an error of the storage in a few words."""
    if isinstance(error, tf.errors.OpError):  # "{{node ...}} /a/path; No space left on device [Op:SaveV2]"
        return error.message.partition(" [Op:")[0].rpartition("; ")[2].strip().rstrip(".")
    return os.strerror(number) if (number := getattr(error, "errno", None)) else str(error).rstrip(".")


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, if it is there."""
    if path.is_dir():
        path.rmtree() if is_url(path) else shutil.rmtree(path)  # type: ignore[attr-defined]
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[pathlib.Path]:
    """Yields a local temporary path of the same suffix; the file or folder written there becomes `path` at the end.

    A file replaces an earlier one. If anything fails, the earlier one stays, and nothing is left beside it.
    """
    beside = path.with_name(f"{TEMPORARY}{path.name}")
    if is_url(path):
        with tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder, path.name)
            yield local
            try:
                tf.io.gfile.copy(str(local), str(beside), overwrite=True)
                tf.io.gfile.rename(str(beside), str(path), overwrite=True)
            finally:
                remove(beside)
        return
    remove(beside)  # of a process that was killed
    try:
        yield beside
        flush_to_disk(beside)  # after a crash, the name could be on the disk without the content
        os.replace(beside, path)
    finally:
        remove(beside)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[pathlib.Path]:
    """Does what `appearing` does, and turns what storage raises into a StorageError.

    Raises:
        StorageError: if it cannot be written; what was there before stays.
    """
    try:
        with appearing(path) as temporary:
            yield temporary
    except FAULTS as error:
        raise StorageError(f"{path} cannot be written: {reason(error)}.") from error


def flush_to_disk(path: str | os.PathLike[str]) -> None:
    """Waits until what was written to a file is on the disk; of a folder, the names in it."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without it
            raise
    finally:
        os.close(file)


def checksum(path: Path) -> str:
    """Returns the SHA-256 of a file, a local path or one of `as_path`, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def append(path: Path, text: str) -> None:
    """Appends to a text file, all or nothing.

    Raises:
        OSError, tf.errors.OpError: if it cannot be written.
    """
    if is_url(path):
        with path.open("a") as file:
            file.write(text)
        return
    with open(path, "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        content = text.encode()
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            file.truncate(end)  # a full disk takes a part of a line
            raise


@contextlib.contextmanager
def local_copy(source: str | os.PathLike[str], beside: Iterable[str] = ()) -> Iterator[str | os.PathLike[str]]:
    """Gives a local path of weights: `source` itself, or for a URL a copy for as long as the context lasts.

    Args:
        source: path or URL of a file, or of a folder that holds one of `convnext.weights.loader.IN_FOLDER`.
        beside: names of other files of its folder that are needed too, where they are there.

    Raises:
        PretrainedError: what is raised in the context, with the URL in place of the copy.
    """
    if not is_url(source):
        yield source
        return
    path = as_path(source)
    with tempfile.TemporaryDirectory() as temporary:
        is_folder = path.is_dir()
        folder, names = (path, IN_FOLDER) if is_folder else (path.parent, (path.name,))
        found = [name for name in names if (folder / name).exists()][:1]
        for name in (*found, *(name for name in beside if (folder / name).exists())):
            tf.io.gfile.copy(str(folder / name), str(pathlib.Path(temporary, name)))
        try:
            yield pathlib.Path(temporary) if is_folder else pathlib.Path(temporary, path.name)
        except PretrainedError as error:
            raise PretrainedError(str(error).replace(temporary, str(folder))) from error


@contextlib.contextmanager
def local_output(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Gives a local path for a file or folder: `path` itself, or for a URL one that is copied there at the end.

    Raises:
        StorageError: if it cannot be copied.
    """
    if not is_url(path):
        yield pathlib.Path(path)
        return
    url = as_path(path)
    with tempfile.TemporaryDirectory() as temporary:
        local = pathlib.Path(temporary, url.name)
        yield local
        for file in [local] if local.is_file() else sorted(other for other in local.rglob("*") if other.is_file()):
            target = url if file == local else url / file.relative_to(local).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as copy:
                shutil.copy(file, copy)


def new_output(name: str | os.PathLike[str], suffixes: Sequence[str] = ()) -> pathlib.Path:
    """Returns the path of a new file or folder, whose parent folders are made.

    Args:
        name: value of `--output`.
        suffixes: of which the name must have one; none for any name.

    Raises:
        UserError: if something is there already, it cannot be written, or it has another suffix.
    """
    path = local_path(name)
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"--output={name}: name a {' or '.join(suffixes)} file.")
    try:
        if path.exists() or path.is_symlink():
            raise UserError(f"--output={name} already exists: name another one, or remove it.")
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={name} cannot be written: {error.strerror or error}.") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"--output={name}: {path.parent} cannot be written to.")
    return path
