"""The logger for Weights & Biases: it never stops a run, and delays its end by half a minute at most."""

import contextlib
import importlib.util
import io
import logging
import os
import pathlib
import queue
import signal
import tempfile
import threading
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import PIL.Image

from experiments.config import Config
from experiments.errors import UserError
from experiments.io import is_url
from experiments.types import Path

if TYPE_CHECKING:
    import wandb

START_SECONDS = 30  # within which the server must answer, or the run is recorded offline
FINISH_SECONDS = 30  # that the end of a run waits for Weights & Biases
TEARDOWN_SECONDS = 5  # that the thread may then take to notice that the service is gone
QUEUE_LENGTH = 10_000
ROOM = 64 * 1024  # free bytes that the disk must have after the record, which may otherwise be truncated


def check_wandb(mode: str) -> None:
    """Raises UserError if Weights & Biases is asked for and is not installed, or not logged in to.

    Called only for a new run, because Weights & Biases never stops a run that has begun.
    """
    if mode == "disabled":
        return
    spec = importlib.util.find_spec("wandb")
    if spec is None or spec.origin is None:  # a folder called wandb has no origin
        raise UserError(
            f"wandb.mode={mode} needs the package wandb, which is not installed: pip install wandb, or leave "
            "--config.wandb.mode=disabled."
        )
    if mode == "offline":
        return
    has_credentials = _has_credentials()
    _end_service()  # started by the check for credentials
    if not has_credentials:
        raise UserError(
            "wandb.mode=online needs an API key: run `wandb login` or set WANDB_API_KEY, or record the run with "
            "--config.wandb.mode=offline."
        )


class Wandb:
    """Logs to a run of Weights & Biases.

    A thread makes all calls, because any of them may hang: `init` waits for the network, and if the service process
    of Weights & Biases hangs, `log` and `finish` wait for it forever, as does Python at its exit.

    Args:
        workdir: of the run.
        config: the `Config`; `wandb.mode` is `online` or `offline`.
        start_step: number of steps that are done.
    """

    def __init__(self, workdir: Path, config: Config, start_step: int) -> None:
        name = config.wandb.name or workdir.name
        self._mode = config.wandb.mode
        self._arguments = {
            "project": config.wandb.project,
            # A resumed run is a new one of the same group: an offline run cannot be continued.
            "name": f"{name}-from-{start_step}" if start_step else name,
            "group": name,
            "dir": None if is_url(workdir) else str(workdir),
            "config": config.to_dict(),
        }
        self._left_out = 0
        self._is_over = False
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        if self._is_over:
            return
        if self._queue.qsize() < QUEUE_LENGTH:
            self._queue.put((step, values))
        else:
            self._left_out += 1

    pictures = scalars

    def close(self) -> None:
        """Waits until all is logged, but no longer than `FINISH_SECONDS`."""
        self._queue.put(None)
        self._thread.join(FINISH_SECONDS)
        if self._thread.is_alive() and not self._is_over:
            self._is_over = True
            _warn(f"did not finish within {FINISH_SECONDS} seconds; metrics.jsonl has all metrics")
        if self._thread.is_alive():
            self._kill_service()
        if self._left_out:
            _warn(f"was too slow for {self._left_out:,} lines of metrics; metrics.jsonl has them")

    def _run(self) -> None:
        """Runs in the thread; an exception of Weights & Biases becomes one warning."""
        problem = "cannot start"
        try:
            import wandb

            run = self._init(wandb)
            problem = "stopped accepting metrics"
            for step, values in iter(self._queue.get, None):
                _log(wandb, run, step, values)
            problem = "did not finish"
            run.finish()
            _check_room(pathlib.Path(run.dir).parent)
        except (Exception, SystemExit) as error:
            if not self._is_over:
                _warn(f"{problem} ({_reason(error)}): training continues without it; metrics.jsonl has all metrics")
        self._is_over = True
        _end_service()

    def _kill_service(self) -> None:
        """Kills the processes that the thread started, and lets the thread take note of it."""
        with contextlib.suppress(OSError):
            children = pathlib.Path(f"/proc/self/task/{self._thread.native_id}/children")
            for process in children.read_text(encoding="utf-8").split():
                os.kill(int(process), signal.SIGKILL)
            self._thread.join(TEARDOWN_SECONDS)

    def _init(self, wandb: ModuleType) -> "wandb.Run":
        # It leaves the output of the program alone.
        settings = wandb.Settings(init_timeout=START_SECONDS, finish_timeout=FINISH_SECONDS - 5, console="off")
        try:
            if self._mode == "online" and not _has_credentials():
                raise UserError("no API key")
            return wandb.init(**self._arguments, mode=self._mode, settings=settings)
        except Exception as error:
            if self._mode != "online":
                raise
            _warn(f"cannot be reached ({_reason(error)}): recording offline; `wandb sync` sends it later")
            return wandb.init(**self._arguments, mode="offline", settings=settings)


def _log(wandb: ModuleType, run: "wandb.Run", step: int, values: Mapping[str, Any]) -> None:
    """Logs metrics or pictures; a rejected picture becomes a warning."""
    try:
        values = {name: _image(wandb, value) if isinstance(value, bytes) else value for name, value in values.items()}
    except Exception as error:
        _warn(f"rejected a picture ({_reason(error)})")
        return
    run.log(values, step=step)


def _image(wandb: ModuleType, content: bytes) -> "wandb.Image":
    return wandb.Image(PIL.Image.open(io.BytesIO(content)))


def _has_credentials() -> bool:
    """Whether Weights & Biases has an API key; also True if this is unknown: then its start will tell."""
    try:
        import wandb

        return bool(wandb.login(prompt=False, verify=False))
    except Exception:
        return True


def _end_service() -> None:
    """Runs the exit handler of Weights & Biases: at Python's exit a lost service makes it hang or print a traceback."""
    with contextlib.suppress(Exception, SystemExit):
        import wandb

        wandb.teardown()


def _check_room(folder: pathlib.Path) -> None:
    """Warns if the disk of a record is full: Weights & Biases does not report what it could not write."""
    size = sum(record.stat().st_size for record in folder.glob("*.wandb"))
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(size + ROOM))
    except OSError as error:
        _warn(f"may have lost the end of its record ({error.strerror}: {folder}); metrics.jsonl has all metrics")


def _warn(text: str) -> None:
    logging.getLogger("experiments").warning("wandb %s.", text)


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
