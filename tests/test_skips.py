"""In continuous integration a test that is skipped for a missing library fails."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import skips

ROOT = pathlib.Path(__file__).parents[1]
IN_TEST = """
import pytest

@pytest.fixture
def library():
    return pytest.importorskip("no_such_library")

def test_passes(): pass
def test_of_a_fixture(library): pass
def test_in_its_body(): pytest.importorskip("no_such_library")
@pytest.mark.skipif(True, reason="no_such_library is missing")
def test_of_a_mark(): pass
def test_of_the_machine(): pytest.skip("needs a GPU")
@pytest.mark.xfail
def test_expected_to_fail(): assert False
"""
IN_MODULE = "import pytest\npytest.importorskip('no_such_library')\ndef test_nothing(): pass\n"


def run(folder, no_skips, *options):
    """Runs `IN_TEST` and `IN_MODULE` in another process; returns its exit code and output."""
    (folder / "test_one.py").write_text(IN_TEST)
    (folder / "test_two.py").write_text(IN_MODULE)
    command = [sys.executable, "-m", "pytest", "-p", "tests.skips", f"--rootdir={folder}", "-c", os.devnull]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FCMAE_NO_SKIPS": no_skips}
    environment.pop("CI", None)  # with it pytest prints each reason twice
    options = ["--continue-on-collection-errors", *options, "."]
    outcome = subprocess.run([*command, *options], cwd=folder, env=environment, capture_output=True, text=True)
    return outcome.returncode, outcome.stdout


@pytest.mark.parametrize("options", [(), ("--numprocesses=1",)])
def test_skips_for_missing_libraries_fail_where_every_test_must_run(tmp_path, options):
    code, output = run(tmp_path, "1", *options)
    assert code == 1 and "1 failed, 1 passed, 1 skipped, 1 xfailed, 3 errors in" in output, output
    assert output.count("FCMAE_NO_SKIPS=1 asks for every test: could not import 'no_such_library'") == 3


def test_they_are_skipped_elsewhere(tmp_path):
    code, output = run(tmp_path, "0")
    assert code == 0 and "1 passed, 5 skipped, 1 xfailed in" in output, output


@pytest.mark.parametrize("name", ["pytest_make_collect_report", "pytest_runtest_makereport"])
def test_this_suite_is_run_by_that_rule(pytestconfig, name):
    called = getattr(pytestconfig.pluginmanager.hook, name).get_hookimpls()
    assert getattr(skips, name) in [implementation.function for implementation in called]
