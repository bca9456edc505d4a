"""Finds the damaged file of a prepared data set of TensorFlow Datasets."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import tensorflow as tf

from experiments.errors import RunError
from experiments.types import Path

if TYPE_CHECKING:
    from experiments.config import DataConfig

TOO_FEW = "was expected to contain"  # TensorFlow's message if a data set has too few examples


@contextlib.contextmanager
def naming_damage(config: "DataConfig") -> Iterator[None]:
    """Context in which a damaged file of TensorFlow Datasets ends a run with a message that names it.

    The records after a damaged one are lost, so it is not skipped like an unreadable image.

    Args:
        config: the `DataConfig`.

    Raises:
        RunError: if a file turned out to be damaged.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.FailedPreconditionError) as error:
        if isinstance(error, tf.errors.FailedPreconditionError) and TOO_FEW not in error.message:
            raise
        damaged = ", ".join(_damaged_files(config)) or "A file"
        reason = error.message.splitlines()[0]
        raise RunError(
            f"{damaged} of {config.source} is damaged ({reason}): prepare the data set again; then the same command "
            "continues from the last checkpoint."
        ) from error


def _damaged_files(config: "DataConfig") -> Iterator[str]:
    """Yields the paths of files whose records cannot all be read."""
    from experiments.data.sources.tfds import find_builder  # importing TensorFlow Datasets takes seconds

    for source, _ in config.sources:
        kind, _, name = source.partition(":")
        if kind == "tfds":
            for split in find_builder(name, config.dir).info.splits.values():
                files = zip(split.filepaths, split.shard_lengths)
                yield from (
                    str(path) for path, length in files if ".tfrecord" in path.name and _is_damaged(path, length)
                )


def _is_damaged(path: Path, length: int) -> bool:
    """Whether a file does not hold `length` records that can be read: a truncated one may end where a record does."""
    try:
        return length != sum(1 for _ in tf.data.TFRecordDataset([str(path)]))
    except tf.errors.OpError:
        return True
