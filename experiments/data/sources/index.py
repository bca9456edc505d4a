"""A record of what was found in files, so that a second start opens only the files that changed.

Records are kept in `$XDG_CACHE_HOME/fcmae`, by default `~/.cache/fcmae`, one file for each folder. They may be deleted
at any time. A file is looked at again if its size or one of its times changed, and so are all of a folder when the code
that looks at them changes, or what it depends on.
"""

import concurrent.futures
import functools
import hashlib
import json
import logging
import os
import pathlib
import sys
import time
import zlib

import PIL

from experiments.io import StorageError, reason, replacing

THREADS = 32  # more than processors: over a network, most of the time goes by waiting
CHUNK = 64  # files of a task: a task takes as long to hand out as a file to open
RECENT = 2_000_000_000  # ns; a file changed again within so short a time may keep its time
QUIET_SECONDS, TERMINAL_SECONDS, LOG_SECONDS = 1.0, 0.2, 10.0


def stamp(entry, now):
    """Returns what changes with the content of a file: a text of its size, mtime and ctime; empty without a file.

    A file that changed just now has no stamp either: one that changes again at once may keep its times.

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


def look_at(folder, stamps, find, rules, keep=lambda found: True, chunk=CHUNK):
    """Returns what is found in each file, `{name: found}`, from the record of an earlier start where nothing changed.

    Args:
        folder: path of the folder, which the record goes by.
        stamps: `{name: stamp}` of its files, see `stamp`.
        find: function from a name to what is found in that file, of types that JSON has. It is called in threads.
        rules: text of all else that `find` depends on, but for the code beside `experiments.data` and Pillow.
        keep: function from what was found to whether it is recorded; other files are looked at by every start.
        chunk: files that a thread looks at before it takes others.
    """
    path = _record_path(folder)
    rules = f"{rules}; Pillow {PIL.__version__}; {_code_version()}"
    known = _read(path, rules)
    changed = [name for name, now in stamps.items() if not now or known.get(name, ("",))[0] != now]
    with _Progress(f"looking at the files of {folder}", len(changed)) as progress:
        new = dict(zip(changed, _in_threads(find, changed, chunk, progress)))
    results = {name: new[name] if name in new else known[name][1] for name in stamps}
    record = {name: (now, results[name]) for name, now in stamps.items() if now and keep(results[name])}
    if record != known:
        try:
            _write(path, rules, str(folder), record)
        except (OSError, StorageError) as error:
            if progress.shown:
                why = reason(error) if isinstance(error, OSError) else str(error).rstrip(".")
                logging.getLogger("experiments").warning(
                    "%s: what was found cannot be kept for the next start: %s. XDG_CACHE_HOME names another place.",
                    folder,
                    why,
                )
    return results


def _record_path(folder):
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
    return pathlib.Path(home, "fcmae", f"folder-{name}.json")


@functools.cache
def _code_version():
    """Returns a text that changes with the code that looks at files."""
    folder = pathlib.Path(__file__).parents[1]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.rglob("*.py")))).hexdigest()


def _read(path, rules):
    """Returns the recorded `{name: [stamp, found]}`; empty where there is none, it is damaged or of other rules."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        header = json.loads(head)
        if header["rules"] == rules and header["crc32"] == zlib.crc32(body):
            names, stamps, found = map(json.loads, body.splitlines())
            return dict(zip(names, zip(stamps, found)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return {}


def _write(path, rules, folder, record):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(record), *zip(*record.values())  # read in half the time of rows
    body = "\n".join(map(json.dumps, columns)).encode()
    header = {"folder": folder, "rules": rules, "crc32": zlib.crc32(body)}
    with replacing(path) as temporary:
        temporary.write_bytes(json.dumps(header).encode() + b"\n" + body)


def _in_threads(find, names, size, progress):
    """Yields what `find` returns for each name, in their order."""
    chunks = [names[start : start + size] for start in range(0, len(names), size)]
    with concurrent.futures.ThreadPoolExecutor(THREADS) as executor:
        for found in executor.map(lambda chunk: [find(name) for name in chunk], chunks):
            progress.add(len(found))
            yield from found


class _Progress:
    """A line on stderr about work that takes more than a second: one that is renewed on a terminal, else several."""

    def __init__(self, what, total):
        self._what, self._total, self._done = what, total, 0
        self._due = time.monotonic() + QUIET_SECONDS
        self.shown = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.shown and sys.stderr.isatty():
            print(file=sys.stderr)

    def add(self, count):
        """Counts work that is done."""
        self._done += count
        if time.monotonic() < self._due:
            return
        is_terminal = sys.stderr.isatty()
        self._due = time.monotonic() + (TERMINAL_SECONDS if is_terminal else LOG_SECONDS)
        self.shown = True
        line = f"{self._what}: {self._done:,} of {self._total:,}"
        print(f"\r{line}" if is_terminal else line, end="" if is_terminal else "\n", file=sys.stderr, flush=True)
