"""A command whose words nobody reads any more ends as it would have."""

import os
import sys

import pytest

from experiments.errors import Interrupted, RunError, UserError
from launch.command import run_command


@pytest.mark.parametrize(("error", "code"), [(Interrupted("stopped"), 0), (RunError("lost"), 1), (UserError("no"), 2)])
def test_exit_codes_do_not_depend_on_a_reader(error, code):
    """Both streams go into a pipe, as with `2>&1 | tee`; whoever reads it leaves at the same Ctrl-C."""

    def main(arguments):
        os.read(gone, 1)
        print("one more line") if code == 2 else None
        raise error

    reading, writing = os.pipe()
    gone, tell = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)
        sys.argv = ["command"]
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        try:
            run_command(main)
        except SystemExit as end:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)
        os._exit(99)
    os.close(writing)
    os.close(reading)
    os.write(tell, b".")
    expected = 1 if code == 2 else code  # a line of output that nobody takes is an end of its own
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == expected
