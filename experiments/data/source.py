"""What a source of images offers: splits whose examples can be read in the order of any epoch.

An example is a pair `(content, label)`. `split.read(content)` gives the bytes of a JPEG, PNG, BMP or GIF file; the
label is an integer, -1 where there is none. The order of epoch e is a function of (seed, e) alone, and reading
can start anywhere in it without decoding what comes before.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from experiments.errors import UserError


@dataclasses.dataclass(frozen=True)
class MemorySplit:
    """Examples that are known one by one: encoded images in memory, or the paths of files.

    Args:
        contents: `(N,)` array of bytes: encoded images or paths.
        labels: `(N,)` integers.
        are_paths: whether `contents` are paths.
    """

    contents: np.ndarray
    labels: np.ndarray
    are_paths: bool = False

    @property
    def num_examples(self):
        """Number of examples."""
        return len(self.labels)

    @property
    def can_fail(self):
        """Whether an example may turn out to be no readable image."""
        return self.are_paths

    def shuffled(self, seed, epoch, skip):
        """Returns the examples in the order of an epoch.

        Args:
            seed: integer.
            epoch: scalar integer, of Python or a tensor.
            skip: scalar integer, how many examples to leave out at the start.
        """
        order = tf.random.experimental.stateless_shuffle(tf.range(self.num_examples), seed=[seed, epoch])
        return self._at(tf.data.Dataset.from_tensor_slices(order[skip:]))

    def in_order(self):
        """Returns the examples in their own order."""
        return self._at(tf.data.Dataset.range(self.num_examples))

    def read(self, content):
        """Returns the bytes of the image file, a scalar string tensor."""
        return tf.io.read_file(content) if self.are_paths else content

    def take(self, indices):
        """Returns the split of the examples at `indices`, in that order."""
        return dataclasses.replace(self, contents=self.contents[indices], labels=self.labels[indices])

    def some(self, count, seed):
        """Returns up to `count` examples, chosen at random."""
        return self.take(np.random.default_rng(seed).permutation(self.num_examples)[:count]).in_order()

    def _at(self, indices):
        contents = tf.constant(self.contents)
        labels = tf.constant(self.labels, tf.int64)
        return indices.map(lambda i: (contents[i], labels[i]))


@dataclasses.dataclass(frozen=True)
class StreamSplit:
    """Examples that can only be read one after another; the methods are those of `MemorySplit`.

    Args:
        examples: `tf.data.Dataset` of `(encoded image, label)`, in the same order whenever it is read.
        num_examples: how many there are.
        shuffle_buffer: number of examples among which an epoch is shuffled.
    """

    examples: tf.data.Dataset
    num_examples: int
    shuffle_buffer: int
    can_fail = False  # a prepared data set holds images that were checked

    @property
    def labels(self):
        """`(N,)` integers. Reads the whole stream."""
        return np.fromiter((label for _, label in self.examples.as_numpy_iterator()), np.int64)

    def shuffled(self, seed, epoch, skip):
        """See `MemorySplit.shuffled`."""
        # `fold_in` keeps what it folds in as the second half of a seed: a number takes a draw with both halves.
        epoch_seed = tf.random.fold_in(tf.constant([seed, 0], tf.int64), epoch)
        shuffle_seed = tf.random.stateless_uniform([], epoch_seed, minval=None, maxval=None, dtype=tf.int64)
        buffer = min(self.shuffle_buffer, self.num_examples)
        return self.examples.shuffle(buffer, seed=shuffle_seed, reshuffle_each_iteration=False).skip(skip)

    def in_order(self):
        """See `MemorySplit.in_order`."""
        return self.examples

    def read(self, content):
        """See `MemorySplit.read`."""
        return content

    def take(self, indices):
        """Returns the split of the examples at `indices`, in that order, held in memory."""
        wanted = set(int(i) for i in indices)
        found = {i: example for i, example in enumerate(self.examples.as_numpy_iterator()) if i in wanted}
        contents = np.array([found[int(i)][0] for i in indices], dtype=object)
        return MemorySplit(contents, np.array([found[int(i)][1] for i in indices], np.int64))

    def some(self, count, seed):
        """Returns the first `count` examples: to choose others, the stream would have to be read to its end."""
        return self.examples.take(count)


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set.

    Args:
        name: as a person would call it.
        splits: splits by name: `train`, and where they exist `validation` and `test`.
        class_names: names of the classes; empty without labels.
        notes: lines for the user about what was found, such as skipped files.
    """

    name: str
    splits: dict
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self):
        """Number of classes, 0 without labels."""
        return len(self.class_names)

    def get(self, name):
        """Returns a split, or None if the source has no images of it."""
        split = self.splits.get(name)
        return split if split is not None and split.num_examples else None

    def split(self, name):
        """Returns a split.

        Raises:
            UserError: if the source has no images of it.
        """
        split = self.get(name)
        if split is None:
            filled = [name for name in self.splits if self.get(name)]
            raise UserError(f"{self.name} has no {name} images; it has {', '.join(filled)}.")
        return split


def held_out(num_examples, shares, seed=0):
    """Draws parts of a data set at random.

    Args:
        num_examples: size `N` of the data set.
        shares: share of each part, numbers that sum to less than 1.
        seed: integer; the parts are a function of `N`, `shares` and it.

    Returns:
        A list of sorted index arrays: what remains, then each part.
    """
    order = np.random.default_rng(seed).permutation(num_examples)
    counts = [round(num_examples * share) for share in shares]
    parts = np.split(order, np.cumsum(counts))
    return [np.sort(part) for part in (parts[-1], *parts[:-1])]
