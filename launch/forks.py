"""Commands in forks of a process that has imported all they need: they start seconds sooner."""

import os
import runpy
import signal
import sys
import traceback

from absl import flags as absl_flags

from experiments import finetune, pretrain  # noqa: F401


class Fork:
    """A fork of this process that runs `python -m launch.NAME`; it has what is used of a `subprocess.Popen`.

    This process must not have computed anything with TensorFlow, whose threads a fork does not have.

    Args:
        name: of the command.
        flags: its flags.
        output: descriptor of the open file that takes what it writes.

    Attributes:
        pid: number of the process.
        returncode: as of `subprocess.Popen`.
    """

    def __init__(self, name, flags, output):
        self.returncode = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            os.dup2(output, 1)
            os.dup2(output, 2)
            absl_flags.FLAGS.remove_flag_values(list(absl_flags.FLAGS))  # those of this command
            os._exit(run_as_main(name, flags))

    def poll(self):
        """Returns the exit code, None while the process runs."""
        return self._wait(os.WNOHANG)

    def wait(self):
        """Waits for the end of the process and returns its exit code."""
        return self._wait(0)

    def kill(self):
        """Ends the process at once."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _wait(self, options):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def run_as_main(name, flags):
    """Runs a command in this process and returns its exit code, as the interpreter would."""
    sys.argv = [f"launch/{name}.py", *flags]
    try:
        runpy.run_module(f"launch.{name}", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code
