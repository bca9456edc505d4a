"""With FCMAE_NO_SKIPS=1 in the environment a skipped test is an error, unless its reason is one of `ALLOWED`.

What is skipped for a missing library never runs and rots unseen, so continuous integration sets the variable.
"""

import os

import pytest

# How the reasons begin that hold there too: needs of the machine, and tests that have a command of their own.
ALLOWED = ("needs a GPU", "needs another Python", "needs the right to mount", "minutes: make soak")


def _fail_if_skipped(report):
    """Makes a report of a skip one of a failure."""
    if os.environ.get("FCMAE_NO_SKIPS") == "1" and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(ALLOWED):
            report.outcome = "failed"
            report.longrepr = f"skipped, though FCMAE_NO_SKIPS=1 asks for every test: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Of a module that skips itself, as by `pytest.importorskip` at its top."""
    return _fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport():
    """Of a test or a fixture."""
    return _fail_if_skipped((yield))
