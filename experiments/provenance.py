"""Hardware, versions, commit and command: what figures depend on besides the configuration."""

import contextlib
import datetime
import functools
import importlib.metadata
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

PACKAGES = ("numpy", "pillow", "keras", "tensorflow", "jax", "jaxlib", "torch")
ROOT = pathlib.Path(__file__).resolve().parents[1]
SECONDS_FOR_GIT = 20
CONTAINER = pathlib.Path("/sys/fs/cgroup")


def provenance() -> dict[str, Any]:
    """Returns `{hardware, versions, commit, uncommitted_changes, time}`, to be recorded with figures.

    `commit` is None, and `uncommitted_changes` False, where the packages do not lie in a repository of their own.
    """
    commit, changes = _commit()
    return {
        "hardware": {"cpu": _cpu_model(), "cores": _cores(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **versions(PACKAGES)},
        "commit": commit,
        "uncommitted_changes": changes,
        "time": now(),
    }


def now() -> str:
    """Returns the time as text, in UTC and to the second: `2026-01-31T12:00:00+00:00`."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def command_line() -> str | None:
    """Returns the command that started this process, as one would type it; None where there is none to repeat."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    program, *arguments = sys.argv or [""]
    if spec:  # python -m
        return shlex.join(["python", "-m", spec.name.removesuffix(".__main__"), *arguments])
    return shlex.join(["python", program, *arguments]) if program not in ("", "-c") else None


def available_memory() -> int:
    """Returns how many bytes of memory are available: to this machine, or to the container that limits it."""
    try:
        text = pathlib.Path("/proc/meminfo").read_text(encoding="utf-8")
        available = int(re.search(r"^MemAvailable:\s*(\d+) kB$", text, re.MULTILINE)[1]) * 1024  # type: ignore[index]
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit, used = (int((CONTAINER / name).read_text(encoding="utf-8")) for name in ("memory.max", "memory.current"))
        # Files that were read count as used memory, and make room when it is needed.
        read = int(re.search(r"^inactive_file (\d+)$", (CONTAINER / "memory.stat").read_text("utf-8"), re.MULTILINE)[1])  # type: ignore[index]
    except (OSError, ValueError):  # no container, or one without a limit
        return available
    return min(available, limit - used + read)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Returns the versions of those packages that are installed, `{name: version}`."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _cores() -> int | None:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu_model() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


@functools.cache
def _commit() -> tuple[str | None, bool]:
    """Returns the commit of this project at the first call, and whether there were uncommitted changes."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or pathlib.Path(top).resolve() != ROOT:  # installed below a repository of something else
        return None, False
    return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain"))


def _git(*arguments: str) -> str | None:
    """Returns what git says of the folder of this project, or None where there is no repository."""
    try:
        answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_FOR_GIT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
