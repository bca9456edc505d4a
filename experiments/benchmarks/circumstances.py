"""On what and with what a benchmark ran: hardware, versions, commit."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess

PACKAGES = ("numpy", "pillow", "keras", "tensorflow", "jax", "jaxlib", "torch")
ROOT = pathlib.Path(__file__).parents[2]


def circumstances():
    """Returns `{hardware, versions, commit, uncommitted_changes, time}`, for a reader of figures to come."""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return {
        "hardware": {"cpu": _cpu_model(), "cores": len(os.sched_getaffinity(0)), "system": platform.platform()},
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": commit,
        "uncommitted_changes": bool(changes),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _versions():
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _cpu_model():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _git(*arguments):
    """Returns what git says of the folder of this file, or None where there is no repository."""
    try:
        answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
