"""The files of checkpoints: which are complete, whether they are what was written, and which may go.

Beside what TensorFlow writes of a checkpoint, `ckpt-STEP.index` and its shards `ckpt-STEP.data-00000-of-00001`, lies
`ckpt-STEP.sha256` with a checksum of each, as `sha256sum --check` reads it. It is written last and in one piece, so a
checkpoint with it is complete, and one without was cut off by the end of its process.
"""

import contextlib
import hashlib
import re

import tensorflow as tf

from convnext.port.files import TEMPORARY
from experiments.paths import FAULTS, reason, remove, replacing

FOLDER, CHECKSUMS = "checkpoints", ".sha256"
NAME = re.compile(rf"(?:{re.escape(TEMPORARY)})?ckpt-(\d+)(?:\.|_temp)")  # `_temp`: where TensorFlow writes shards
BLOCK = 1 << 22  # bytes that are read at a time


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
        return f"the last good checkpoint is {self.latest}" if self.latest else "there is no checkpoint yet"

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
        """Writes the checksums of a checkpoint that TensorFlow has written."""
        names = sorted(name for name in self._found()[step] if name.startswith(f"ckpt-{step}."))
        lines = "".join(f"{_sha256(self.folder / name)}  {name}\n" for name in names)
        with replacing(self.folder / f"ckpt-{step}{CHECKSUMS}") as temporary:
            temporary.write_text(lines, encoding="utf-8")

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

        Later ones are damaged: the run began before them.
        """
        kept = [other for other in self.complete() if other <= step][-keep:]
        for other in self._found().keys() - set(kept):
            self.remove(other)

    def remove(self, step):
        """Removes the files of a checkpoint, the checksums first; those that cannot be removed stay."""
        for name in sorted(self._found().get(step, ()), key=lambda name: not name.endswith(CHECKSUMS)):
            with contextlib.suppress(*FAULTS):  # what stays is in nobody's way, and the next time tries again
                remove(self.folder / name)

    def _found(self):
        """Returns `{step: names of files}`."""
        found = {}
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FAULTS:  # there is no folder yet
            return found
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
