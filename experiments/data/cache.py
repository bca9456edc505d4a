"""Encoded images in memory, so that only the first reading waits for the disk.

With `data.cache` each split is read whole the first time that it is needed, and stays in memory as the bytes of its
files; order, augmentation and everything else are as without. The rule on memory: all splits of the source together
may take half of the memory that is available when the run starts; if they are larger, the run says so and does not
start. Of several workers each holds all of it.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import re

import numpy as np
import tensorflow as tf

from experiments.data.files import read_bytes, size_of
from experiments.errors import UserError

SHARE = 0.5  # of the available memory
GIBIBYTE = 2**30
CONTAINER = pathlib.Path("/sys/fs/cgroup")
CHUNK = 1024  # examples of a stream that are read at once


def with_cache(source):
    """Returns a `Source` whose splits stay in memory once they have been read.

    Raises:
        UserError: if they are larger than the rule on memory allows.
    """
    sizes = {name: split.num_bytes for name, split in source.splits.items() if name != "unlabelled"}
    # A run learns from one of the two, and what is unlabelled is a part of it.
    size = sum(sizes.values()) - min(sizes.get("train", 0), sizes.get("pretrain", 0))
    available = available_memory()
    if size > SHARE * available:
        raise UserError(
            f"data.cache: the images of {source.name} take {size / GIBIBYTE:.1f} GiB, more than half of the "
            f"{available / GIBIBYTE:.1f} GiB of memory that are available: leave data.cache=False."
        )
    splits = {name: split.cached() for name, split in source.splits.items()}
    note = f"held in memory once read: {size / GIBIBYTE:.2g} GiB"
    return dataclasses.replace(source, splits=splits, notes=(*source.notes, note))


def available_memory():
    """Returns how many bytes of memory are available: to this machine, or to the container that limits it."""
    try:
        text = pathlib.Path("/proc/meminfo").read_text(encoding="utf-8")
        available = int(re.search(r"^MemAvailable:\s*(\d+) kB$", text, re.MULTILINE)[1]) * 1024
    except OSError:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit, used = (int((CONTAINER / name).read_text(encoding="utf-8")) for name in ("memory.max", "memory.current"))
        # Files that were read count as used memory, and make room when it is needed.
        read = int(re.search(r"^inactive_file (\d+)$", (CONTAINER / "memory.stat").read_text("utf-8"), re.MULTILINE)[1])
    except (OSError, ValueError):  # no container, or one without a limit
        return available
    return min(available, limit - used + read)


def total_size(paths):
    """Returns the size of files or their parts in bytes; one that cannot be found counts nothing."""
    return sum(map(size_of, paths))


def read_files(paths):
    """Returns the contents of files or their parts, `(N,)` bytes; empty where one cannot be read: none decodes that."""
    with concurrent.futures.ThreadPoolExecutor() as executor:
        return np.array(list(executor.map(read_bytes, paths)), dtype=object)


def read_examples(examples):
    """Returns a dataset of `(encoded image, label)` as two tensors, `(N,)` strings and `(N,)` int64."""
    contents, labels = zip(*examples.batch(CHUNK).as_numpy_iterator())  # one by one takes longer than reading them
    return tf.constant(np.concatenate(contents)), tf.constant(np.concatenate(labels), tf.int64)
