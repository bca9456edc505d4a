"""Checkpoints: the state from which a run resumes exactly, and the files that hold it.

TensorFlow writes a checkpoint as `ckpt-STEP.index` and shards `ckpt-STEP.data-00000-of-00001`. Beside them
`ckpt-STEP.sha256` has the checksum of each, as `sha256sum --check` reads it. It is written last and atomically: a
checkpoint with this file is complete; without it, the process ended during the write.
"""

import contextlib
import pathlib
import re
import tempfile
from collections.abc import Iterator

import keras
import tensorflow as tf

from experiments.errors import RunError, UserError
from experiments.io import FAULTS, TEMPORARY, StorageError, checksum, flush_to_disk, is_url, reason, remove, replacing
from experiments.training.distributed.strategy import generator_states
from experiments.training.ema import AveragedWeights
from experiments.training.loss_scale import LossScale
from experiments.types import Path

FOLDER, CHECKSUMS = "checkpoints", ".sha256"
NAME = re.compile(rf"(?:{re.escape(TEMPORARY)})?ckpt-(\d+)(?:\.|_temp)")  # `_temp`: where TensorFlow writes shards
MISSING = (FileNotFoundError, tf.errors.NotFoundError)


class CheckpointFiles:
    """The checkpoints of the run in a workdir, by the step they were saved at.

    Args:
        workdir: its path; it may be missing.
    """

    def __init__(self, workdir: Path) -> None:
        self.folder = workdir / FOLDER

    @property
    def latest(self) -> str | None:
        """The path prefix of the newest complete checkpoint, or None."""
        steps = self.complete()
        return self.prefix(steps[-1]) if steps else None

    @property
    def last_good(self) -> str:
        """Which checkpoint to resume from, as part of a sentence."""
        try:
            latest = self.latest
        except StorageError as error:
            return str(error).rstrip(".")
        return f"the last good checkpoint is {latest}" if latest else "there is no checkpoint yet"

    def prefix(self, step: int) -> str:
        """Returns the path prefix of a checkpoint's files, as a text for TensorFlow."""
        return str(self.folder / f"ckpt-{step}")

    def complete(self) -> list[int]:
        """Returns the steps of complete checkpoints, ascending."""
        return sorted(step for step, names in self._found().items() if f"ckpt-{step}{CHECKSUMS}" in names)

    def unfinished(self) -> list[int]:
        """Returns the steps of incomplete checkpoints, ascending."""
        return sorted(self._found().keys() - set(self.complete()))

    def seal(self, step: int) -> None:
        """Flushes a checkpoint that TensorFlow has written to disk, then writes its checksums.

        Raises:
            StorageError: if that fails, or the checkpoint is gone.
        """
        names = sorted(name for name in self._found().get(step, ()) if name.startswith(f"ckpt-{step}."))
        if not names:
            raise StorageError(f"{self.folder} is gone.")
        self._flush(*names)
        lines = "".join(f"{checksum(self.folder / name)}  {name}\n" for name in names)
        with replacing(self.folder / f"ckpt-{step}{CHECKSUMS}") as temporary:
            temporary.write_text(lines, encoding="utf-8")
        self._flush("")

    def damage(self, step: int) -> str:
        """Returns what is wrong with a complete checkpoint, in a few words; an empty text if it is intact."""
        try:
            lines = (self.folder / f"ckpt-{step}{CHECKSUMS}").read_text(encoding="utf-8").splitlines()
        except (*FAULTS, UnicodeDecodeError):
            return "its checksums cannot be read"
        expected = dict(line.split("  ", 1)[::-1] for line in lines if "  " in line)
        if f"ckpt-{step}.index" not in expected or len(expected) < 2:
            return "its checksums are damaged"
        for name, recorded in expected.items():
            path = self.folder / name
            try:
                if not path.exists():
                    return f"{name} is missing"
                if checksum(path) != recorded:
                    return f"{name} does not match its checksum"
            except FAULTS as error:
                return f"{name} cannot be read: {reason(error)}"
        return ""

    def prune(self, step: int, keep: int) -> None:
        """Removes all checkpoints but the newest `keep` complete ones up to `step`, which was just saved.

        Later ones are damaged, because the run resumed from an earlier one. Files that cannot be removed stay.
        """
        with contextlib.suppress(StorageError):
            kept = [other for other in self.complete() if other <= step][-keep:]
            for other in self._found().keys() - set(kept):
                self.remove(other)

    def remove(self, step: int) -> None:
        """Removes the files of a checkpoint, the checksums first; those that cannot be removed stay."""
        with contextlib.suppress(StorageError):
            for name in sorted(self._found().get(step, ()), key=lambda name: not name.endswith(CHECKSUMS)):
                with contextlib.suppress(*FAULTS):  # removed the next time
                    remove(self.folder / name)

    def _flush(self, *names: str) -> None:
        """Flushes files, or the folder itself, to disk, before older checkpoints are removed."""
        if is_url(self.folder):
            return
        for name in names:
            try:
                flush_to_disk(self.folder / name)
            except OSError as error:
                raise StorageError(f"{self.folder / name} cannot be written: {reason(error)}.") from error

    def _found(self) -> dict[int, list[str]]:
        """Returns `{step: names of files}`; a folder that exists and cannot be read is a StorageError."""
        found: dict[int, list[str]] = {}
        try:
            names = [path.name for path in self.folder.iterdir()]
        except MISSING:  # there is no folder yet
            return found
        except FAULTS as error:
            raise StorageError(f"{self.folder} cannot be read: {reason(error)}.") from error
        for name in names:
            if match := NAME.match(name):
                found.setdefault(int(match[1]), []).append(name)
        return found


# TensorFlow raises these if the variables of a checkpoint differ from the model's, or their shapes do.
MISMATCH = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    ValueError,
    LookupError,
    RuntimeError,
    AssertionError,
)
# TensorFlow interprets the path of a checkpoint as a pattern.
PATTERN = "*?[]\\"


class Checkpoints:
    """The checkpoints in a workdir: model with its random generators, optimizer (with its step), moving average of the
    weights, loss scale and position in the data.

    Each is written with checksums, which are verified before it is restored, see `CheckpointFiles`.

    Args:
        workdir: of the run.
        model: built model.
        optimizer: built optimizer.
        keep: number of newest checkpoints that are kept.
        averages: the `AveragedWeights`, for a run that has them.
        is_writer: whether this process saves checkpoints: of several workers, which have the same state, only the chief
            does.
        loss_scale: the `LossScale`, for a run that has one.
    """

    def __init__(
        self,
        workdir: Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        keep: int,
        averages: AveragedWeights | None = None,
        is_writer: bool = True,
        loss_scale: LossScale | None = None,
    ) -> None:
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._window = tf.Variable("", dtype=tf.string, trainable=False, name="window")
        self._averages = averages
        # Keras models do not expose their random generators (stochastic depth, dropout) to TensorFlow's tracking.
        parts = {"model": model, "optimizer": optimizer, "generators": generator_states(model)}
        self._parts = parts | {"step": self._step, "window": self._window}
        # A checkpoint may lack these if the configuration of the run has changed.
        self._additional = {"averages": averages.averages} if averages else {}
        if loss_scale:
            self._additional["loss_scale"] = loss_scale.variables
        self._checkpoint = tf.train.Checkpoint(**self._parts, **self._additional)
        self._workdir = workdir
        self._files = CheckpointFiles(workdir)
        self._keep = keep
        self._is_writer = is_writer

    @property
    def last_good(self) -> str:
        return self._files.last_good

    @property
    def window(self) -> str:
        """The text that was saved with the restored checkpoint; empty without one."""
        return self._window.numpy().decode()

    def save(self, step: int, window: str = "") -> None:
        """Saves the state after `step` steps, with a text of the metrics that are not logged yet.

        Raises:
            RunError: if it cannot be written; no part of it is left, and earlier checkpoints stay.
        """
        if not self._is_writer:
            return
        self._step.assign(step)
        self._window.assign(window)
        problem = f"The checkpoint of step {step:,} cannot be written"
        try:
            if not self._workdir.exists():  # TensorFlow would create it again
                raise RunError(f"{self._workdir} no longer exists")
            self._files.folder.mkdir(exist_ok=True)
            self._files.remove(step)  # a damaged one, which the run did not resume from
            self._checkpoint.write(self._files.prefix(step))
            self._files.seal(step)
        except (*FAULTS, RunError) as error:
            self._files.remove(step)
            why = error if isinstance(error, RunError) else reason(error)
            raise RunError(f"{problem}: {str(why).rstrip('.')}; {self.last_good}.") from error
        self._files.prune(step, self._keep)

    def restore(self) -> tuple[int, list[str]]:
        """Restores the newest checkpoint that is complete and undamaged.

        Returns:
            `(step, notes)`: the step it was saved at, 0 if there is none, and a line for each that was skipped.

        Raises:
            RunError: if there are complete checkpoints and all are damaged.
            UserError: if it does not fit the model.
        """
        notes = [f"checkpoint {self._files.prefix(step)} is incomplete: ignored" for step in self._files.unfinished()]
        steps = self._files.complete()
        for step in reversed(steps):
            damage = self._files.damage(step)
            if not damage:
                self._read(step, notes)
                return step, notes
            notes.append(f"checkpoint {self._files.prefix(step)} is damaged ({damage}): using the previous one")
        if steps:
            paths = ", ".join(self._files.prefix(step) for step in reversed(steps))
            raise RunError(f"No checkpoint can be read: {paths} ({damage}). Use another --workdir to start over.")
        return 0, notes

    def _read(self, step: int, notes: list[str]) -> None:
        prefix = self._files.prefix(step)
        try:
            with _without_pattern(prefix) as path:
                present = {name: part for name, part in self._additional.items() if _holds(path, f"{name}/")}
                is_whole = len(present) == len(self._additional)
                checkpoint = self._checkpoint if is_whole else tf.train.Checkpoint(**self._parts, **present)
                checkpoint.read(path).assert_existing_objects_matched()
        except MISMATCH as error:
            what = " ".join(str(error).split())[:200]
            raise UserError(
                f"{prefix} does not fit the model and its optimizer ({what}): use another --workdir; if the "
                "run is complete, --config.pretrained starts from its weights."
            ) from error
        except FAULTS as error:
            raise StorageError(f"{prefix} cannot be read: {reason(error)}.") from error
        if self._averages and "averages" not in present:
            notes.append("the checkpoint has no moving average: it starts from the current weights")
            self._averages.begin()


def _holds(path: str, beginning: str) -> bool:
    """Whether a checkpoint holds variables whose names start with `beginning`."""
    names = tf.compat.v1.train.NewCheckpointReader(path).get_variable_to_shape_map()
    return any(name.startswith(beginning) for name in names)


@contextlib.contextmanager
def _without_pattern(prefix: str) -> Iterator[str]:
    """Yields a path to the files of a prefix that TensorFlow does not interpret as a pattern."""
    if is_url(prefix) or not any(character in prefix for character in PATTERN):
        yield prefix
        return
    folder, name = pathlib.Path(prefix).absolute().parent, pathlib.Path(prefix).name
    with tempfile.TemporaryDirectory() as temporary:
        link = pathlib.Path(temporary, FOLDER)
        link.symlink_to(folder, target_is_directory=True)
        yield str(link / name)
