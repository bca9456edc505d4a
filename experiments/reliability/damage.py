"""What lies in a folder of checkpoints, seen from outside, and what a failing disk does to it."""

import dataclasses
import pathlib

from experiments.training.checkpoint_files import CHECKSUMS, CheckpointFiles

# What makes up a checkpoint: values, where each of them lies, and checksums of both.
PARTS = (".data-00000-of-00001", ".index", CHECKSUMS)
FLIPPED_BYTES = 16


def complete_steps(folder):
    """Returns the steps of the checkpoints in a folder that were written to their end, ascending."""
    return CheckpointFiles(folder).complete()


def unfinished_files(folder):
    """Returns the names of what lies in a folder of checkpoints and belongs to no complete one."""
    complete = {f"ckpt-{step}" for step in complete_steps(folder)}
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return {name for name in names if name.partition(".")[0] not in complete}


@dataclasses.dataclass(frozen=True)
class Damage:
    """A file of a checkpoint that was damaged.

    Args:
        step: of the checkpoint.
        kind: what was done, in words.
        file: path.
        left: what the file holds since then; None if it is gone.
    """

    step: int
    kind: str
    file: pathlib.Path
    left: bytes | None

    @property
    def persists(self):
        """Whether the file is still as the damage left it: a run that comes to that step again writes it anew."""
        return (self.file.read_bytes() if self.file.exists() else None) == self.left


def damage(folder, step, random):
    """Damages a checkpoint in one of the ways of `KINDS`.

    Args:
        folder: of the checkpoints.
        step: of the checkpoint.
        random: a `numpy.random.Generator`.

    Returns:
        The `Damage`.
    """
    file = folder / f"ckpt-{step}{PARTS[random.integers(len(PARTS))]}"
    kind = list(KINDS)[random.integers(len(KINDS))]
    left = KINDS[kind](file.read_bytes(), random)
    if left is None:
        file.unlink()
    else:
        file.write_bytes(left)
    return Damage(step, kind, file, left)


def _flip(content, random):
    flipped = bytearray(content)
    for i in random.choice(len(content), min(FLIPPED_BYTES, len(content)), replace=False):
        flipped[i] ^= 0xFF
    return bytes(flipped)


def _cut(content, random):
    return content[: random.integers(len(content) // 2 + 1)]


def _remove(content, random):
    del content, random


# What is done to a file: functions of its content and a generator to what is left.
KINDS = {"bytes flipped": _flip, "cut short": _cut, "removed": _remove}
