"""The files of checkpoints: which are complete, whether they are what was written, and which may go.

Beside what TensorFlow writes of a checkpoint, `ckpt-STEP.index` and its shards `ckpt-STEP.data-00000-of-00001`, lies
`ckpt-STEP.sha256` with a checksum of each, as `sha256sum --check` reads it. It is written last and in one piece, so a
checkpoint with it is complete, and one without was cut off by the end of its process.
"""

import contextlib
import hashlib
import re

import tensorflow as tf

from experiments.io import FAULTS, TEMPORARY, StorageError, flush_to_disk, is_url, reason, remove, replacing

FOLDER, CHECKSUMS = "checkpoints", ".sha256"
NAME = re.compile(rf"(?:{re.escape(TEMPORARY)})?ckpt-(\d+)(?:\.|_temp)")  # `_temp`: where TensorFlow writes shards
BLOCK = 1 << 22  # bytes that are read at a time
MISSING = (FileNotFoundError, tf.errors.NotFoundError)


class CheckpointFiles:
    """The checkpoints in a folder, by the step they were saved at.

    Args:
        folder: path of the folder; it may be missing.
    """

    def __init__(self, folder):
        self.folder = folder

    @classmethod
    def of(cls, workdir):
        """Returns those of the run in a workdir."""
        return cls(workdir / FOLDER)

    @property
    def latest(self):
        """What all files of the newest complete checkpoint begin with, or None."""
        steps = self.complete()
        return self.prefix(steps[-1]) if steps else None

    @property
    def last_good(self):
        """What there is to go on from, as a part of a sentence."""
        try:
            latest = self.latest
        except StorageError as error:
            return str(error).rstrip(".")
        return f"the last good checkpoint is {latest}" if latest else "there is no checkpoint yet"

    def prefix(self, step):
        """Returns what all files of a checkpoint begin with, as TensorFlow takes it: a text."""
        return str(self.folder / f"ckpt-{step}")

    def complete(self):
        """Returns the steps of complete checkpoints, ascending."""
        return sorted(step for step, names in self._found().items() if f"ckpt-{step}{CHECKSUMS}" in names)

    def unfinished(self):
        """Returns the steps of checkpoints that were not written to their end, ascending."""
        return sorted(self._found().keys() - set(self.complete()))

    def seal(self, step):
        """Writes the checksums of a checkpoint that TensorFlow has written, once it is on the disk.

        Raises:
            StorageError: if that fails, or the checkpoint is gone.
        """
        names = sorted(name for name in self._found().get(step, ()) if name.startswith(f"ckpt-{step}."))
        if not names:
            raise StorageError(f"{self.folder} is gone.")
        self._flush(*names)
        lines = "".join(f"{_sha256(self.folder / name)}  {name}\n" for name in names)
        with replacing(self.folder / f"ckpt-{step}{CHECKSUMS}") as temporary:
            temporary.write_text(lines, encoding="utf-8")
        self._flush("")

    def damage(self, step):
        """Returns what is wrong with a complete checkpoint, in a few words; an empty text if nothing is."""
        try:
            lines = (self.folder / f"ckpt-{step}{CHECKSUMS}").read_text(encoding="utf-8").splitlines()
        except (*FAULTS, UnicodeDecodeError):
            return "its checksums cannot be read"
        expected = dict(reversed(line.split("  ", 1)) for line in lines if "  " in line)
        if f"ckpt-{step}.index" not in expected or len(expected) < 2:
            return "its checksums are damaged"
        for name, checksum in expected.items():
            path = self.folder / name
            try:
                if not path.exists():
                    return f"{name} is missing"
                if _sha256(path) != checksum:
                    return f"{name} is not what was written"
            except FAULTS as error:
                return f"{name} cannot be read: {reason(error)}"
        return ""

    def prune(self, step, keep):
        """Removes all but the newest `keep` complete checkpoints up to a step that was saved just now.

        Later ones are damaged: the run began before them. What cannot be removed stays.
        """
        with contextlib.suppress(StorageError):
            kept = [other for other in self.complete() if other <= step][-keep:]
            for other in self._found().keys() - set(kept):
                self.remove(other)

    def remove(self, step):
        """Removes the files of a checkpoint, the checksums first; those that cannot be removed stay."""
        with contextlib.suppress(StorageError):
            for name in sorted(self._found().get(step, ()), key=lambda name: not name.endswith(CHECKSUMS)):
                with contextlib.suppress(*FAULTS):  # what stays is in nobody's way, and the next time tries again
                    remove(self.folder / name)

    def _flush(self, *names):
        """Waits until files, or the folder itself, are on the disk: what was there before may go then."""
        if is_url(self.folder):
            return
        for name in names:
            try:
                flush_to_disk(self.folder / name)
            except OSError as error:
                raise StorageError(f"{self.folder / name} cannot be written: {reason(error)}.") from error

    def _found(self):
        """Returns `{step: names of files}`.

        Raises:
            StorageError: if the folder is there and cannot be looked at, which is not the same as no checkpoint.
        """
        found = {}
        try:
            names = [path.name for path in self.folder.iterdir()]
        except MISSING:  # there is no folder yet
            return found
        except FAULTS as error:
            raise StorageError(f"{self.folder} cannot be looked at: {reason(error)}.") from error
        for name in names:
            if match := NAME.match(name):
                found.setdefault(int(match[1]), []).append(name)
        return found


def _sha256(path):
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(str(path), "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
