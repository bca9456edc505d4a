"""Runs commands in forks of this process, so that only it pays for importing TensorFlow.

Reads lines of the standard input, `{"folder": ..., "commands": [[name, flags], ...]}` as JSON, runs the commands in the
folder, and writes a line for each: a list of exit code, output and errors.
"""

import launch.environment  # noqa: F401, I001  (first)

import gc
import json
import os
import runpy
import sys
import tempfile
import traceback

from experiments import evaluate, finetune, prepare, pretrain  # noqa: F401

gc.freeze()  # as in conftest.py
gc.set_threshold(20_000)


def run_in_fork(name, flags):
    """Runs `launch.NAME` as the main module of a child and returns how it ended."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if not child:
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            os._exit(run_as_main(name, flags))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        errors.seek(0)
        return {"code": code, "output": output.read(), "errors": errors.read()}


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


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        os.chdir(request["folder"])
        print(json.dumps([run_in_fork(name, flags) for name, flags in request["commands"]]), flush=True)
