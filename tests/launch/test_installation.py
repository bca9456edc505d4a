"""A command on a machine that has the library alone."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_a_command_says_what_to_install():
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import launch.pretrain",
    ]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode == 2
    assert outcome.stderr == (
        "error: absl, ml_collections: not installed; the commands need pip install 'fcmae[train]'\n"
    )
