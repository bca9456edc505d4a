"""The files of checkpoints, seen from outside, and what a failing disk does to them."""

import dataclasses
import pathlib
import re

LIST = "checkpoint"  # TensorFlow's name for the file that says which checkpoints there are
LISTED = re.compile(r'^all_model_checkpoint_paths: "(.*)"$', re.MULTILINE)
# What holds a checkpoint: values, and where each of them lies.
PARTS = (".data-00000-of-00001", ".index")
FLIPPED_BYTES = 16


def listed_checkpoints(folder):
    """Returns the names of the checkpoints that the list in a folder names, oldest first."""
    try:
        text = (folder / LIST).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [pathlib.PurePath(path).name for path in LISTED.findall(text)]


def unlisted_files(folder):
    """Returns the names of what lies in a folder of checkpoints and belongs to none that the list names."""
    known = {LIST, *listed_checkpoints(folder)}
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return {name for name in names if name.partition(".")[0] not in known}


def step_of(name):
    """Returns the step of a checkpoint called `ckpt-STEP`."""
    return int(name.rpartition("-")[2])


@dataclasses.dataclass(frozen=True)
class Damage:
    """A file of a checkpoint that was damaged.

    Args:
        checkpoint: its name.
        kind: what was done, in words.
        file: path.
        left: what the file holds since then; None if it is gone.
    """

    checkpoint: str
    kind: str
    file: pathlib.Path
    left: bytes | None

    @property
    def persists(self):
        """Whether the file is still as the damage left it: a run that comes to that step again writes it anew."""
        return (self.file.read_bytes() if self.file.exists() else None) == self.left


def damage(folder, checkpoint, random):
    """Damages a checkpoint in one of the ways of `KINDS`.

    Args:
        folder: of the checkpoints.
        checkpoint: its name.
        random: a `numpy.random.Generator`.

    Returns:
        The `Damage`.
    """
    file = folder / (checkpoint + PARTS[random.integers(len(PARTS))])
    kind = list(KINDS)[random.integers(len(KINDS))]
    left = KINDS[kind](file.read_bytes(), random)
    if left is None:
        file.unlink()
    else:
        file.write_bytes(left)
    return Damage(checkpoint, kind, file, left)


def _flip(content, random):
    flipped = bytearray(content)
    for i in random.choice(len(content), min(FLIPPED_BYTES, len(content)), replace=False):
        flipped[i] ^= 0xFF
    return bytes(flipped)


def _cut(content, random):
    return content[: random.integers(len(content))]


def _remove(content, random):
    del content, random


# What is done to a file: functions of its content and a generator to what is left.
KINDS = {"bytes flipped": _flip, "cut short": _cut, "removed": _remove}
