"""The loggers of metrics and pictures: JSON lines and TensorBoard in the workdir, and Weights & Biases."""

import contextlib
import io
import json
from collections.abc import Mapping
from typing import Any

import PIL.Image
import tensorflow as tf

from experiments.config import Config
from experiments.io import FAULTS, StorageError, append, reason, remove, replacing
from experiments.training.guards import best_effort
from experiments.training.wandb_logger import Wandb
from experiments.types import Metrics, Path

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"


class Loggers:
    """All loggers of a run, used as one.

    A logger has three methods, none of which raises or waits for long: `scalars(step, values)` with `{name: number}`,
    `pictures(step, pictures)` with `{name: bytes of a PNG file}`, and `close()`.

    Args:
        workdir: of the run.
        config: the `Config`.
    """

    def __init__(self, workdir: Path, config: Config) -> None:
        self._workdir, self._config = workdir, config
        self._loggers: list[JsonLines | TensorBoard | Wandb] = []
        self._step = 0
        self._values: dict[str, float] = {}

    def begin(self, start_step: int) -> None:
        """Opens the loggers of a run that starts after `start_step` steps.

        Raises:
            StorageError: if the metrics of those steps cannot be read or written.
        """
        self._loggers = [JsonLines(self._workdir, start_step)]
        if self._config.tensorboard:
            self._loggers.append(TensorBoard(self._workdir / TENSORBOARD, start_step))
        if self._config.wandb.mode != "disabled":
            self._loggers.append(Wandb(self._workdir, self._config, start_step))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Takes metrics of a step, `{name: number}`; all metrics of one step are logged together."""
        if step != self._step:
            self.flush()
        self._step = step
        self._values.update(values)

    def pictures(self, step: int, paths: Mapping[str, Path]) -> None:
        """Logs pictures of a step, `{name: path or URL of a PNG file}`; those that cannot be read are left out."""
        for name, path in paths.items():
            with contextlib.suppress(*FAULTS):
                content = path.read_bytes()
                for logger in self._loggers:
                    logger.pictures(step, {name: content})

    def flush(self) -> None:
        """Logs the metrics passed to `scalars`."""
        if self._values:
            for logger in self._loggers:
                logger.scalars(self._step, self._values)
            self._values = {}

    def close(self) -> None:
        """Logs the remaining metrics and closes the loggers."""
        self.flush()
        for logger in self._loggers:
            logger.close()


class JsonLines:
    """Appends a line to `metrics.jsonl` for each logged step; a resumed run drops the lines after its checkpoint.

    Args:
        workdir: of the run.
        start_step: number of steps that are done.

    Raises:
        StorageError: if the lines of an earlier start cannot be read or written.
    """

    def __init__(self, workdir: Path, start_step: int) -> None:
        self._path = workdir / METRICS
        self._unwritten = ""
        lines = read_metrics(workdir)
        kept = [line for line in lines if line["step"] <= start_step] if start_step else []
        with replacing(self._path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._unwritten += json.dumps({"step": step, **values}) + "\n"
        self._write()

    def pictures(self, step: int, pictures: Mapping[str, bytes]) -> None: ...  # they are files of the workdir

    def close(self) -> None:
        if self._unwritten:
            self._write()

    def _write(self) -> None:
        with best_effort(self._path):  # missing lines are written with the next one, or at the end
            append(self._path, self._unwritten)
            self._unwritten = ""


class TensorBoard:
    """Writes events for TensorBoard, without needing its package.

    TensorBoard itself replaces the points of steps that a resumed run repeats.

    Args:
        folder: path of the folder of the events.
        start_step: number of steps that are done; at 0, events of an earlier run are removed.
    """

    def __init__(self, folder: Path, start_step: int) -> None:
        self._folder, self._writer = folder, None
        with best_effort(folder):
            if not start_step:
                remove(folder)
            self._writer = tf.summary.create_file_writer(str(folder))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._write(step, {name: {"simple_value": value} for name, value in values.items()})

    def pictures(self, step: int, pictures: Mapping[str, bytes]) -> None:
        with best_effort(self._folder):
            for name, content in pictures.items():
                width, height = PIL.Image.open(io.BytesIO(content)).size
                image = {"width": width, "height": height, "encoded_image_string": content}
                self._write(step, {name: {"image": image}})

    def close(self) -> None:
        if self._writer:
            with best_effort(self._folder):
                self._writer.close()

    def _write(self, step: int, values: Mapping[str, dict[str, Any]]) -> None:
        if not self._writer:
            return
        # `tf.summary.scalar` needs the package, and puts the number on the device.
        summary = tf.compat.v1.Summary(value=[{"tag": name, **value} for name, value in values.items()])
        with best_effort(self._folder), tf.device("CPU"), self._writer.as_default():
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step)


def read_metrics(workdir: Path) -> list[Metrics]:
    """Returns the lines of a run's metrics as dictionaries; leaves out damaged ones, such as a truncated line.

    Raises:
        StorageError: if they cannot be read.
    """
    path = workdir / METRICS
    try:
        content = path.read_bytes() if path.exists() else b""
    except FAULTS as error:
        raise StorageError(f"{path} cannot be read: {reason(error)}.") from error
    return parse_metrics(content)[0]


def parse_metrics(content: bytes) -> tuple[list[Metrics], int]:
    """Parses `metrics.jsonl`.

    Args:
        content: bytes of the file.

    Returns:
        `(lines, damaged)`: the intact lines, mappings from a name to a number with an integer `step`; and the number of
        damaged lines, such as a truncated one.
    """
    written = [line for line in content.splitlines() if line.strip()]
    lines = [line for line in map(_parsed, written) if line is not None]
    return lines, len(written) - len(lines)


def _parsed(line: bytes) -> Metrics | None:
    try:
        metrics = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_line = isinstance(metrics, dict) and type(metrics.get("step")) is int
    return metrics if is_line and all(map(is_number, metrics.values())) else None


def is_number(value: object) -> bool:
    """Whether a value from a JSON file is a number that a run could have written: not a boolean or a huge integer."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)
