"""A record of the properties of files, so that a second start opens only the files that changed.

Records are kept in `$XDG_CACHE_HOME/fcmae`, by default `~/.cache/fcmae`, one file for each folder. They may be deleted
at any time. A file is checked again if its size or one of its times has changed; all files of a folder are, if the code
that checks them or its inputs have changed.
"""

import concurrent.futures
import functools
import hashlib
import itertools
import json
import logging
import math
import os
import pathlib
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import PIL
from tqdm import tqdm

from experiments.io import StorageError, reason, replacing

CHUNK = 64  # files of a task: scheduling a task takes as long as opening a file
MEASURED = 128  # tasks between two measurements of the time that opening files waits for the storage
THREADS = 32  # at most
RECENT = 2_000_000_000  # ns; a file that changes again within this time may keep its timestamp
QUIET_SECONDS = 1.0  # of work before progress is shown
TERMINAL_SECONDS, LOG_SECONDS = 0.2, 10.0  # between two updates of the progress


def stamp(entry: os.DirEntry[str] | pathlib.Path, now: int) -> str:
    """Returns a text that changes with the content of a file: its size, mtime and ctime; empty if there is no file.

    A file that has just changed has no stamp either, because it may change again without new times.

    Args:
        entry: an `os.DirEntry` or a `pathlib.Path`.
        now: time in ns before which the file was listed, see `time.time_ns`.
    """
    try:
        status = entry.stat()
    except OSError:
        return ""
    is_recent = status.st_ctime_ns > now - RECENT
    return "" if is_recent else f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def look_at(
    folder: str | os.PathLike[str],
    stamps: Mapping[str, str],
    find: Callable[[str], Any],
    rules: str,
    keep: Callable[[Any], bool] = lambda found: True,
    chunk: int = CHUNK,
) -> dict[str, Any]:
    """Returns the findings of `find` for each file, `{name: found}`; for unchanged files from the record.

    Args:
        folder: path of the folder, the key of the record.
        stamps: `{name: stamp}` of its files, see `stamp`.
        find: function from a name to the findings in that file, of JSON types. It is called in threads.
        rules: text of everything else that `find` depends on, except the code of `experiments.data` and Pillow.
        keep: function from findings to whether to record them; other files are checked at every start.
        chunk: number of files that a thread takes at a time.
    """
    path = _record_path(folder)
    rules = f"{rules}; Pillow {PIL.__version__}; {_code_version()}"
    known = _read(path, rules)
    changed = [name for name, now in stamps.items() if not now or known.get(name, ("",))[0] != now]
    began = time.monotonic()
    new = dict(zip(changed, _in_threads(find, changed, chunk, f"looking at the files of {folder}")))
    results = {name: new[name] if name in new else known[name][1] for name in stamps}
    record = {name: (now, results[name]) for name, now in stamps.items() if now and keep(results[name])}
    if record != known:
        try:
            _write(path, rules, str(folder), record)
        except (OSError, StorageError) as error:
            if time.monotonic() - began > QUIET_SECONDS:
                why = reason(error) if isinstance(error, OSError) else str(error).rstrip(".")
                logging.getLogger("experiments").warning(
                    "%s: the record of its files cannot be saved: %s. Set XDG_CACHE_HOME to another folder.",
                    folder,
                    why,
                )
    return results


def _record_path(folder: str | os.PathLike[str]) -> pathlib.Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
    return pathlib.Path(home, "fcmae", f"folder-{name}.json")


@functools.cache
def _code_version() -> str:
    """Returns a text that changes with the code that looks at files."""
    folder = pathlib.Path(__file__).parents[1]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.rglob("*.py")))).hexdigest()


def _read(path: pathlib.Path, rules: str) -> dict[str, tuple[str, Any]]:
    """Returns the recorded `{name: [stamp, found]}`; empty if it is missing, damaged or made with other rules."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        header = json.loads(head)
        if header["rules"] == rules and header["crc32"] == zlib.crc32(body):
            names, stamps, found = map(json.loads, body.splitlines())
            return dict(zip(names, zip(stamps, found)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return {}


def _write(path: pathlib.Path, rules: str, folder: str, record: Mapping[str, tuple[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(record), *zip(*record.values())  # read in half the time of rows
    body = "\n".join(map(json.dumps, columns)).encode()
    header = {"folder": folder, "rules": rules, "crc32": zlib.crc32(body)}
    with replacing(path) as temporary:
        temporary.write_bytes(json.dumps(header).encode() + b"\n" + body)


def _in_threads(find: Callable[[str], Any], names: Sequence[str], size: int, what: str) -> Iterator[Any]:
    """Yields what `find` returns for each name, in their order; shows the progress of slow work on stderr.

    There are as many threads as wait for the storage: over a network many, of a local disk two, because Python's
    threads compute one at a time, and many of them would mostly wait for each other.
    """

    def found_in(chunk: Sequence[str]) -> list[Any]:
        return [find(name) for name in chunk]

    chunks = [names[start : start + size] for start in range(0, len(names), size)]
    seconds = TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS
    with tqdm(desc=what, total=len(names), unit="file", delay=QUIET_SECONDS, mininterval=seconds) as bar:
        for start in range(0, len(chunks), MEASURED):
            first, *others = chunks[start : start + MEASURED]
            began, computed = time.perf_counter(), time.thread_time()
            of_first = found_in(first)
            waiting = (time.perf_counter() - began) / max(time.thread_time() - computed, 1e-6)
            with concurrent.futures.ThreadPoolExecutor(min(THREADS, max(2, math.ceil(waiting)))) as executor:
                for found in itertools.chain([of_first], executor.map(found_in, others)):
                    bar.update(len(found))
                    yield from found
