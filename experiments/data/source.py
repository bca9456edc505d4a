"""Sources of images: splits whose examples can be read in the order of any epoch.

An example is a pair `(content, label)`. `split.read(content)` returns the bytes of an image file; the label is an
integer, -1 where there is none. The order of epoch e is a function of (seed, e) alone, and only the examples at the
requested positions are decoded. So a run can start at any position, and shards can divide an epoch.
"""

import dataclasses
import functools
import os
import typing
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from experiments.data.cache import read_examples, read_files
from experiments.data.files import read_parts, read_path, size_of
from experiments.data.jpeg_damage import checked
from experiments.errors import UserError

if typing.TYPE_CHECKING:
    from experiments.data.segmentation_masks import Masks

# What identifies an image until it is read: its bytes, its path, or a tuple of such, depending on the split.
Content: typing.TypeAlias = "tf.Tensor | tuple[tf.Tensor, ...]"
PARTS = 16  # images of a shard that are read at once
CHUNK = 128  # examples of a stream that are filtered at once: one by one takes longer than reading them


class Split(typing.Protocol):
    """What every split offers; the contents of its examples differ, and only its `read` knows them."""

    @property
    def num_examples(self) -> int:
        """Number of examples."""

    @property
    def labels(self) -> np.ndarray:
        """`(N,)` integers, -1 where there is none."""

    @property
    def can_fail(self) -> bool:
        """Whether an example may turn out to be unreadable."""

    @property
    def num_bytes(self) -> int:
        """Size of the files, which a cache would hold."""

    @property
    def cache(self) -> str:
        """What stays in memory, see `experiments.data.cache`."""

    def cached(self, cache: str) -> "Split":
        """Returns the same split with another cache."""

    def order(self, seed: int, epoch: tf.Tensor, positions: tf.Tensor) -> tf.data.Dataset:
        """Returns the numbers of the examples that `shuffled` returns, int64. Nothing is read."""

    def shuffled(self, seed: int, epoch: tf.Tensor, positions: tf.Tensor) -> tf.data.Dataset:
        """Returns the examples at some positions in the order of an epoch. Only those are read.

        Args:
            seed: integer.
            epoch: scalar int64 tensor.
            positions: `(P,)` int64 tensor, ascending, each below `num_examples`.
        """

    def in_order(self) -> tf.data.Dataset:
        """Returns the examples in their own order."""

    def read(self, content: Content) -> tf.Tensor:
        """Returns the bytes of the image file, a scalar string tensor; see `jpeg_damage.checked` of a damaged JPEG."""

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the split of the examples at `indices`, in that order."""

    def find(self, number: int) -> dict[str, typing.Any]:
        """Returns where an example is, by its number: a dictionary of `index` in this split and, if known, `name`."""


@dataclasses.dataclass(frozen=True)
class MemorySplit:
    """Examples that are known one by one: encoded images in memory, or the paths of files. The methods are of `Split`.

    Args:
        contents: `(N,)` array of bytes: encoded images, or paths of files or of their parts, see `files.parts_of`.
        labels: `(N,)` integers.
        are_paths: whether `contents` are paths.
        cache: what stays in memory, see `experiments.data.cache`.
        unchecked: whether encoded images in memory may be unreadable; files always may.
        names: `(N,)` texts that identify the images for the user; files without names are identified by their paths.
        groups: `(N,)` integers from 0: the shards that contain the images; None for separate files.
        groups_at_once: number of shards whose images an epoch mixes before it continues with others.
    """

    contents: np.ndarray
    labels: np.ndarray
    are_paths: bool = False
    cache: str = "none"
    unchecked: bool = False
    names: np.ndarray | None = None
    groups: np.ndarray | None = None
    groups_at_once: int = 1

    @property
    def num_examples(self) -> int:
        return len(self.labels)

    @property
    def can_fail(self) -> bool:
        return self.are_paths or self.unchecked

    @property
    def num_bytes(self) -> int:
        return sum(map(size_of, self.contents)) if self.are_paths else 0

    def cached(self, cache: str) -> "MemorySplit":
        return self if cache == self.cache else dataclasses.replace(self, cache=cache)

    def order(self, seed: int, epoch: tf.Tensor, positions: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(self.num_examples), seed=[seed, epoch])
        if self.groups is not None:
            order = self._by_groups(order, seed, epoch)
        return tf.data.Dataset.from_tensor_slices(tf.cast(tf.gather(order, positions), tf.int64))

    def shuffled(self, seed: int, epoch: tf.Tensor, positions: tf.Tensor) -> tf.data.Dataset:
        return self._at(self.order(seed, epoch, positions))

    def in_order(self) -> tf.data.Dataset:
        return self._at(tf.data.Dataset.range(self.num_examples))

    def read(self, content: tf.Tensor | tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        if isinstance(content, tuple):
            path, encoded = content
            return checked(encoded, path)
        encoded = read_path(content) if self.are_paths and self.cache != "encoded" else content
        return checked(encoded, content) if self.can_fail else encoded

    def take(self, indices: np.ndarray) -> "MemorySplit":
        columns: dict[str, typing.Any] = {name: values[indices] for name, values in self._columns.items()}
        return dataclasses.replace(self, **columns)

    def followed_by(self, other: "MemorySplit") -> "MemorySplit":
        """Returns the split of these examples and then those of another of the same kind, in groups of their own."""
        others = other._columns
        if self.groups is not None:
            others["groups"] = others["groups"] + 1 + self.groups.max()
        columns: dict[str, typing.Any] = {
            name: np.concatenate([values, others[name]]) for name, values in self._columns.items()
        }
        return dataclasses.replace(self, **columns)

    @property
    def _columns(self) -> dict[str, np.ndarray]:
        columns = {name: getattr(self, name) for name in ("contents", "labels", "names", "groups")}
        return {name: values for name, values in columns.items() if values is not None}

    def _by_groups(self, order: tf.Tensor, seed: int, epoch: tf.Tensor) -> tf.Tensor:
        """Returns an order in which some groups come first, mixed with each other, then others."""
        assert self.groups is not None
        groups = tf.constant(self.groups, tf.int64)
        # A separate draw from that of the examples, so that the two are independent.
        group_seed = tf.random.fold_in(tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)]), 1)
        places = tf.range(int(self.groups.max()) + 1, dtype=tf.int64)
        turn = tf.random.experimental.stateless_shuffle(places, seed=group_seed) // self.groups_at_once
        turns = tf.gather(turn, tf.gather(groups, order))
        return tf.gather(order, tf.argsort(turns, stable=True))

    def find(self, number: int) -> dict[str, typing.Any]:
        if self.names is not None:
            return {"index": number, "name": str(self.names[number])}
        return {"index": number, "name": os.fsdecode(self.contents[number])} if self.are_paths else {"index": number}

    def some(self, count: int, seed: int) -> tf.data.Dataset:
        """Returns up to `count` examples, chosen at random."""
        return self.take(np.random.default_rng(seed).permutation(self.num_examples)[:count]).in_order()

    def _at(self, indices: tf.data.Dataset) -> tf.data.Dataset:
        contents, labels = self._tensors
        if self.groups is None or self.cache == "encoded":
            return indices.map(lambda i: (contents[i], labels[i]))

        def read(indices: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor]:
            paths = tf.gather(contents, indices)
            return (paths, read_parts(paths)), tf.gather(labels, indices)

        return indices.batch(PARTS).map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).unbatch()

    @functools.cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.init_scope(), tf.device("CPU"):  # outside of any graph, which would take in a copy
            contents = read_files(self.contents) if self.are_paths and self.cache == "encoded" else self.contents
            return tf.constant(contents), tf.constant(self.labels, tf.int64)


@dataclasses.dataclass(frozen=True)
class StreamSplit:
    """Examples that can only be read one after another; the methods are those of `Split`.

    Examples at other positions than those requested are read, but not decoded.

    Args:
        examples: `tf.data.Dataset` of `(encoded image, label)`, in the same order whenever it is read.
        num_examples: how many there are.
        shuffle_buffer: number of examples among which an epoch is shuffled.
        num_bytes: size of the examples, which a cache would hold.
        cache: what stays in memory, see `experiments.data.cache`.
        name_of: function from the number of an example to a text that identifies it for the user.
    """

    examples: tf.data.Dataset
    num_examples: int
    shuffle_buffer: int
    num_bytes: int = 0
    cache: str = "none"
    name_of: Callable[[int], str] = str
    can_fail = True  # a prepared data set may hold original files that were never decoded

    @property
    def labels(self) -> np.ndarray:
        """See `Split.labels`. Reads the whole stream."""
        chunks = self.in_order().map(lambda content, label: label).batch(CHUNK)
        return np.concatenate([np.zeros(0, np.int64), *chunks.as_numpy_iterator()])

    def cached(self, cache: str) -> "StreamSplit":
        return dataclasses.replace(self, cache=cache)

    def order(self, seed: int, epoch: tf.Tensor, positions: tf.Tensor) -> tf.data.Dataset:
        return self._shuffled(tf.data.Dataset.range(self.num_examples), seed, epoch, positions)

    def shuffled(self, seed: int, epoch: tf.Tensor, positions: tf.Tensor) -> tf.data.Dataset:
        return self._shuffled(self.in_order(), seed, epoch, positions)

    def _shuffled(
        self, examples: tf.data.Dataset, seed: int, epoch: tf.Tensor, positions: tf.Tensor
    ) -> tf.data.Dataset:
        # `fold_in` keeps its argument as the second half of a seed, so the number is drawn from both halves.
        epoch_seed = tf.random.fold_in(tf.constant([seed, 0], tf.int64), epoch)
        shuffle_seed = tf.random.stateless_uniform([], epoch_seed, minval=None, maxval=None, dtype=tf.int64)
        buffer = min(self.shuffle_buffer, self.num_examples)
        shuffled = examples.shuffle(buffer, seed=shuffle_seed, reshuffle_each_iteration=False)
        size = tf.constant([self.num_examples], tf.int64)
        wanted = tf.scatter_nd(positions[:, tf.newaxis], tf.ones_like(positions, tf.bool), size)

        def choose(
            start: tf.Tensor, chunk: tf.Tensor | tuple[tf.Tensor, tf.Tensor]
        ) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
            return tf.nest.map_structure(lambda values: tf.boolean_mask(values, wanted[start : start + CHUNK]), chunk)

        chunks = tf.data.Dataset.zip(tf.data.Dataset.range(0, self.num_examples, CHUNK), shuffled.batch(CHUNK))
        chosen = chunks.map(choose).unbatch()
        return chosen.take(tf.size(positions, tf.int64))

    def in_order(self) -> tf.data.Dataset:
        return self._held if self.cache == "encoded" else self.examples

    def read(self, content: tf.Tensor) -> tf.Tensor:
        return checked(content, content)

    def take(self, indices: np.ndarray) -> MemorySplit:
        """Returns the split of the examples at `indices`, in that order, held in memory."""
        wanted = np.zeros(self.num_examples, bool)
        wanted[indices] = True
        chosen = [
            [values[wanted[start : start + CHUNK]] for values in chunk]
            for start, chunk in zip(
                range(0, self.num_examples, CHUNK), self.in_order().batch(CHUNK).as_numpy_iterator()
            )
        ]
        contents, labels = (np.concatenate(column) for column in zip(*chosen))
        place = (np.cumsum(wanted) - 1)[indices]  # of each index among the chosen examples
        names = np.array([self.name_of(int(i)) for i in indices], dtype=object)
        return MemorySplit(contents[place], labels[place], cache=self.cache, unchecked=True, names=names)

    def find(self, number: int) -> dict[str, typing.Any]:
        return {"index": number, "name": self.name_of(number)}

    def some(self, count: int, seed: int) -> tf.data.Dataset:
        """Returns the first `count` examples: to choose others, the stream would have to be read to its end."""
        return self.in_order().take(count)

    @functools.cached_property
    def _held(self) -> tf.data.Dataset:
        with tf.init_scope(), tf.device("CPU"):
            return tf.data.Dataset.from_tensor_slices(read_examples(self.examples))


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set.

    Args:
        name: name of the data set for messages.
        splits: splits by name: `train`, and where they exist `validation`, `test`, and `pretrain`, which pretraining
            uses instead of `train`, and `unlabelled`, the part of `pretrain` that is in no other split.
        class_names: names of the classes; empty without labels.
        label_sets: `(S, num_classes)` booleans, where images have several classes or none: a label is the index of a
            row; None if a label is a class.
        notes: lines for the user about what was found, such as skipped files.
        skipped: `((name, reason), ...)` of files that were found but belong to no split.
        masks: how masks are read, of a source for segmentation.
    """

    name: str
    splits: Mapping[str, Split]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    label_sets: np.ndarray | None = None
    masks: "Masks | None" = None

    def as_multi_label(self) -> "Source":
        """Returns the source with `label_sets`: where a label is a class, the set of only that class."""
        if self.label_sets is not None:
            return self
        return dataclasses.replace(self, label_sets=np.eye(self.num_classes, dtype=bool))

    @property
    def label_names(self) -> tuple[str, ...]:
        """Texts that name the labels: a class, or all classes of a set, as in `cat;dog`."""
        if self.label_sets is None:
            return self.class_names
        return tuple(";".join(np.array(self.class_names, object)[chosen]) for chosen in self.label_sets)

    @property
    def num_classes(self) -> int:
        """Number of classes, 0 without labels."""
        return len(self.class_names)

    def get(self, name: str) -> Split | None:
        """Returns a split, or None if the source has no images of it."""
        split = self.splits.get(name)
        return split if split is not None and split.num_examples else None

    def split(self, name: str) -> Split:
        """Returns a split.

        Raises:
            UserError: if the source has no images of it.
        """
        split = self.get(name)
        if split is None:
            filled = [name for name in self.splits if self.get(name)]
            how = "; rename the folder of the training images to train" if name == "train" else ""
            raise UserError(f"{self.name} has no {name} images; it has {', '.join(filled)}{how}.")
        return split
