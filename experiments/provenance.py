"""On what and with what a program ran: hardware, versions, commit, command."""

import datetime
import functools
import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys

PACKAGES = ("numpy", "pillow", "keras", "tensorflow", "jax", "jaxlib", "torch")
ROOT = pathlib.Path(__file__).resolve().parents[1]
SECONDS_FOR_GIT = 20


def provenance():
    """Returns `{hardware, versions, commit, uncommitted_changes, time}`, for a reader of figures to come.

    `commit` is None, and `uncommitted_changes` False, where the packages do not lie in a repository of their own.
    """
    commit, changes = _commit()
    return {
        "hardware": {"cpu": _cpu_model(), "cores": _cores(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": commit,
        "uncommitted_changes": changes,
        "time": now(),
    }


def now():
    """Returns the time as text, in UTC and to the second: `2026-01-31T12:00:00+00:00`."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def command_line():
    """Returns the command that started this process, as one would type it; None where there is none to repeat."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    program, *arguments = sys.argv or [""]
    if spec:  # python -m
        return shlex.join(["python", "-m", spec.name.removesuffix(".__main__"), *arguments])
    return shlex.join(["python", program, *arguments]) if program not in ("", "-c") else None


def _versions():
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _cores():
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu_model():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


@functools.cache
def _commit():
    """Returns the commit of this project when it was first asked for, and whether there were changes beside it."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or pathlib.Path(top).resolve() != ROOT:  # installed below a repository of something else
        return None, False
    return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain"))


def _git(*arguments):
    """Returns what git says of the folder of this project, or None where there is no repository."""
    try:
        answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_FOR_GIT)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
