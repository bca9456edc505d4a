"""Files in the graph of a data set: their bytes, and Python functions that look at each file once.

A part of a file, such as an image in a shard, is named by bytes, like a path, so code that reads files by their paths
reads parts too.
"""

import functools
import io
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import numpy as np
import tensorflow as tf

from experiments.io import reason

MARK = b"\0"  # starts the name of a part; no path starts with it
OPEN = 32  # files of which parts were read last
UNKNOWN = -1  # result of a function that has not been called


def parts_of(path: str | os.PathLike[str], places: Iterable[Sequence[int]]) -> list[bytes]:
    """Returns the names of parts of a file as it is now, of `[(offset, size), ...]` in bytes.

    Once the file is replaced, its parts cannot be read: what is at their places may be another image.
    """
    version, name = os.stat(path).st_mtime_ns, os.fsencode(path)
    return [MARK + name + b":%d:%d:%d" % (version, offset, size) for offset, size in places]


def read_path(path: tf.Tensor) -> tf.Tensor:
    """Returns the content of a file or a part of one, in the graph of a data set.

    Args:
        path: scalar string tensor: a path, or one of `parts_of`. The content of a part that cannot be read is
            empty, which no decoder accepts, and its file is logged, once.
    """
    is_part = tf.strings.substr(path, 0, 1) == MARK
    read_part = lambda: tf.ensure_shape(tf.numpy_function(read_bytes, [path], tf.string), ())  # noqa: E731
    return tf.cond(is_part, read_part, lambda: tf.io.read_file(path))


def read_parts(paths: tf.Tensor) -> tf.Tensor:
    """Returns what `read_path` does for parts of files, `(P,)` strings: one call of Python for all of them."""
    read = lambda paths: np.array([read_bytes(path) for path in paths], object)  # noqa: E731
    return tf.ensure_shape(tf.numpy_function(read, [paths], tf.string), paths.shape)


def read_bytes(path: bytes | np.ndarray) -> bytes:
    """Returns the bytes of a file or a part of one; empty where it cannot be read."""
    path = cast(bytes, np.asarray(path, object).item())
    if not path.startswith(MARK):
        try:
            with open(path, "rb") as whole:
                return whole.read()
        except OSError:
            return b""
    name, version, offset, size = path[1:].rsplit(b":", 3)
    try:
        file = _opened(name, int(version))  # kept, so that no other thread closes it
        content = os.pread(file.fileno(), int(size), int(offset))
    except OSError as error:
        _log(name, reason(error))
        return b""
    if len(content) < int(size):
        _log(name, "it is truncated")
        return b""
    return content


def size_of(path: bytes) -> int:
    """Returns the number of bytes of a file or a part of one; 0 where there is none."""
    if path[:1] == MARK:
        return int(path.rpartition(b":")[2])
    return os.path.getsize(path) if os.path.exists(path) else 0


@functools.lru_cache(OPEN)
def _opened(path: bytes, version: int) -> io.FileIO:
    """Returns an open file, which is closed with the last reference to it; `version` is its modification time."""
    file = io.FileIO(path)
    if os.fstat(file.fileno()).st_mtime_ns != version:
        raise OSError("it was modified after the run began, which has to be started again")
    if hasattr(os, "posix_fadvise"):  # reads all of it in sequence, before its parts are needed
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
    return file


@functools.cache
def _log(name: bytes, why: str) -> None:
    logging.getLogger("experiments").warning(
        "%s cannot be read: %s. Its images count as unreadable.", os.fsdecode(name), why
    )


def memoized(function: Callable[..., np.int64], key: tf.Tensor, *arguments: tf.Tensor) -> tf.Tensor:
    """Calls a Python function in the graph of a data set, or returns what it returned for this key before.

    Each process calls it once per image; later epochs look the result up.

    Args:
        function: maps NumPy values to a non-negative int64.
        key: scalar string tensor that identifies the image.
        *arguments: of the function.

    Returns:
        Scalar int64 tensor.
    """

    def call() -> tf.Tensor:
        result = tf.ensure_shape(tf.numpy_function(function, arguments, tf.int64), ())
        with tf.control_dependencies([results.insert(number, result)]):
            return tf.identity(result)

    results, number = _results(function), tf.strings.to_hash_bucket_fast(key, 2**63 - 1)
    known = tf.ensure_shape(results.lookup(number), ())
    return tf.cond(known == UNKNOWN, call, lambda: known)


@functools.cache
def _results(function: Callable[..., np.int64]) -> tf.lookup.experimental.MutableHashTable:
    del function  # of each a table of its own
    with tf.init_scope(), tf.device("CPU"):  # outside of any graph, for all of them
        return tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, UNKNOWN)
