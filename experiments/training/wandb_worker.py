"""The process that talks to Weights & Biases for a run; the run itself never does.

Whatever Weights & Biases waits for, raises or breaks down with stays in here. The run starts this file as a program of
its own, and writes lines of JSON to its standard input: first the arguments of `wandb.init`, then what is to be logged.
The end of the input ends it. With `--check` it tells by its exit code whether there are credentials.
"""

import base64
import io
import json
import pathlib
import sys
import tempfile

NO_CREDENTIALS = 3  # exit code of `--check`
ROOM = 64 * 1024  # bytes beyond its record that the disk has to have, or the record may have lost its end


def main():
    """Does what the lines of the standard input say."""
    try:
        import wandb

        run = _start(wandb, json.loads(sys.stdin.readline()))
    except Exception as error:
        _warn(f"cannot start ({_reason(error)}): the run goes on without it")
        run = None
    for line in sys.stdin:  # to the end: the run must not find the pipe broken
        if run is None:
            continue
        try:
            _log(wandb, run, **json.loads(line))
        except Exception as error:
            _warn(f"takes no more metrics ({_reason(error)}): the run goes on without it")
            run = None
    if run is not None:
        folder = pathlib.Path(run.dir).parent
        try:
            run.finish()
        except Exception as error:
            _warn(f"did not finish ({_reason(error)})")
        _check_room(folder)


def check():
    """Ends this program with `NO_CREDENTIALS` if Weights & Biases knows no API key; asks nobody for one."""
    import wandb

    if not wandb.login(prompt=False, verify=False):
        sys.exit(NO_CREDENTIALS)


def _start(wandb, start):
    settings = wandb.Settings(**start["settings"])
    try:
        return wandb.init(**start["arguments"], mode=start["mode"], settings=settings)
    except Exception as error:
        if start["mode"] != "online":
            raise
        _warn(f"is not reached ({_reason(error)}): recording offline; `wandb sync` sends it later")
        return wandb.init(**start["arguments"], mode="offline", settings=settings)


def _log(wandb, run, step, metrics, pictures):
    if metrics:
        run.log(metrics, step=step)
    if not pictures:
        return
    try:
        run.log({name: _image(wandb, encoded) for name, encoded in pictures.items()}, step=step)
    except Exception as error:
        _warn(f"takes no picture ({_reason(error)})")


def _image(wandb, encoded):
    from PIL import Image

    return wandb.Image(Image.open(io.BytesIO(base64.b64decode(encoded))))


def _check_room(folder):
    """Says if the folder of a record takes no more: Weights & Biases is silent about what it could not write."""
    size = sum(record.stat().st_size for record in folder.glob("*.wandb"))
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(size + ROOM))
    except OSError as error:
        _warn(f"may have lost the end of its record ({error.strerror}: {folder}); metrics.jsonl has all metrics")


def _warn(text):
    print(f"wandb {text}.", file=sys.stderr, flush=True)


def _reason(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


if __name__ == "__main__":
    check() if sys.argv[1:] == ["--check"] else main()
