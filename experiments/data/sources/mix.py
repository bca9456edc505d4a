"""Several sources combined into one, for pretraining.

An epoch of a mix has as many images as its sources have together, and every epoch has the same number from each source:
in proportion to the weights or, without weights, to the sizes, so that each image occurs once. If an epoch takes fewer
images than a source has, the next epoch continues where it stopped; if it takes more, the source starts again, in
another order. The source of the k-th example of epoch e, and the example within it, are functions of (seed, e, k).

A mix has no labels, even if its sources have some: fine-tuning on it is an error. Its validation images are those of
its sources, one source after the other.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import tensorflow as tf

from experiments.data.files import read_path
from experiments.data.jpeg_damage import checked
from experiments.data.source import MemorySplit, Source, Split
from experiments.errors import UserError

SEEDS_OF_A_SOURCE = 2**32  # seeds of runs are below


@dataclasses.dataclass(frozen=True)
class MixedSplit:
    """The splits of several sources; the methods are those of `Split`.

    Its contents are pairs: whether the content is a path, and the content.

    Args:
        parts: the splits.
        counts: how many examples of each an epoch has; they sum to `num_examples`.
    """

    parts: tuple[Split, ...]
    counts: tuple[int, ...]

    @property
    def num_examples(self) -> int:
        return sum(self.counts)

    @property
    def labels(self) -> np.ndarray:
        return np.full(self.num_examples, -1)

    @property
    def num_bytes(self) -> int:
        return sum(part.num_bytes for part in self.parts)

    @property
    def can_fail(self) -> bool:
        return any(part.can_fail for part in self.parts)

    @property
    def cache(self) -> str:
        """What stays in memory, the same of all parts."""
        return self.parts[0].cache

    def cached(self, cache: str) -> "MixedSplit":
        return dataclasses.replace(self, parts=tuple(part.cached(cache) for part in self.parts))

    def take(self, indices: np.ndarray) -> "MixedSplit":
        """Returns the split of the examples at `indices`, ascending, as they are numbered."""
        own = [indices - start for start in self._starts]
        own = [some[(some >= 0) & (some < part.num_examples)] for some, part in zip(own, self.parts)]
        parts = tuple(part.take(some) for part, some in zip(self.parts, own) if len(some))
        return MixedSplit(parts, tuple(part.num_examples for part in parts))

    def order(self, seed: int, epoch: tf.Tensor, positions: tf.Tensor) -> tf.data.Dataset:
        """See `Split.order`. Examples are numbered source by source, as in `in_order`."""

        def numbers_of(i: int, *order: Any) -> tf.data.Dataset:
            return self.parts[i].order(*order).map(lambda number: number + self._starts[i])

        return self._shuffled(numbers_of, seed, epoch, positions)

    def shuffled(self, seed: int, epoch: tf.Tensor, positions: tf.Tensor) -> tf.data.Dataset:
        """See `Split.shuffled`. A stream among the sources is read from its start in every epoch."""

        def examples_of(i: int, *order: Any) -> tf.data.Dataset:
            return self._marked(self.parts[i], self.parts[i].shuffled(*order))

        return self._shuffled(examples_of, seed, epoch, positions)

    def _shuffled(
        self, draw: Callable[..., tf.data.Dataset], seed: int, epoch: tf.Tensor, positions: tf.Tensor
    ) -> tf.data.Dataset:
        counts = tf.constant(self.counts, tf.int64)
        in_turn = tf.repeat(tf.range(len(self.parts)), counts)
        source = tf.random.experimental.stateless_shuffle(in_turn, seed=[seed, epoch])
        is_of = tf.cast(tf.one_hot(source, len(self.parts)), tf.int64)
        before = tf.reduce_sum((tf.cumsum(is_of) - 1) * is_of, axis=1)  # of the same source in this epoch
        draws = tf.cast(epoch, tf.int64) * tf.gather(counts, source) + before

        source, draws = tf.gather(source, positions), tf.gather(draws, positions)
        examples = [self._draw(draw, i, seed, tf.boolean_mask(draws, source == i)) for i in range(len(self.parts))]
        choice = tf.data.Dataset.from_tensor_slices(tf.cast(source, tf.int64))
        return tf.data.Dataset.choose_from_datasets(examples, choice)

    def in_order(self) -> tf.data.Dataset:
        """Returns the examples of one source after the other."""
        first, *others = (self._marked(part, part.in_order()) for part in self.parts)
        for other in others:
            first = first.concatenate(other)
        return first

    def read(self, content: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        is_path, key, encoded = content
        return checked(tf.cond(is_path, lambda: read_path(key), lambda: encoded), key)

    def find(self, number: int) -> dict[str, Any]:
        """See `Split.find`; the index is one within a source, whose number, from 0, is `source`."""
        source = int(np.searchsorted(self._starts, number, side="right")) - 1
        return {"source": source, **self.parts[source].find(number - self._starts[source])}

    @property
    def _starts(self) -> list[int]:
        """The numbers of the first example of each source."""
        return [sum(part.num_examples for part in self.parts[:i]) for i in range(len(self.parts))]

    def _draw(self, draw: Callable[..., tf.data.Dataset], i: int, seed: int, draws: tf.Tensor) -> tf.data.Dataset:
        """Returns the results of `draw` for the i-th source at some positions of its concatenated epochs."""
        part, seed = self.parts[i], seed + (i + 1) * SEEDS_OF_A_SOURCE
        epochs = draws // part.num_examples

        def epoch_examples(epoch: tf.Tensor) -> tf.data.Dataset:
            positions = tf.boolean_mask(draws, epochs == epoch) - epoch * part.num_examples
            return draw(i, seed, epoch, positions)

        return tf.data.Dataset.from_tensor_slices(tf.unique(epochs).y).flat_map(epoch_examples)

    @staticmethod
    def _marked(part: Split, examples: tf.data.Dataset) -> tf.data.Dataset:
        def mark(
            content: tf.Tensor | tuple[tf.Tensor, tf.Tensor], _: tf.Tensor
        ) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
            key, encoded = content if isinstance(content, tuple) else (content, content)
            return (tf.constant(is_path), key, encoded), tf.constant(-1, tf.int64)

        is_path = isinstance(part, MemorySplit) and part.are_paths and part.cache != "encoded" and part.groups is None
        return examples.map(mark)


def mix(sources: Sequence[Source], weights: Sequence[float | None]) -> Source:
    """Returns the `Source` of several.

    Args:
        sources: each a `Source`.
        weights: a number for each, or None for all.

    Raises:
        UserError: if a weight is so small that an epoch would have no image of its source.
    """
    parts = tuple(source.get("pretrain") or source.split("train") for source in sources)
    sizes = [part.num_examples for part in parts]
    counts = divide(sum(sizes), sizes if None in weights else cast(Sequence[float], weights))
    notes = []
    for source, size, count in zip(sources, sizes, counts):
        if not count:
            epoch = f"an epoch of {sum(sizes):,} images has none of it"
            raise UserError(f"The weight of {source.name} is too small: {epoch}.")
        notes += [f"{source.name}: {count:,} images of an epoch, from {size:,}", *source.notes]
    splits = {"train": MixedSplit(parts, counts)}
    if held_out := tuple(part for source in sources if (part := source.get("validation"))):
        splits["validation"] = MixedSplit(held_out, tuple(part.num_examples for part in held_out))
    return Source(f"the mix of {' and '.join(source.name for source in sources)}", splits, (), tuple(notes))


def divide(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """Returns whole numbers that sum to `total`, in proportion to weights: the largest remainders are rounded up."""
    exact = total * np.array(weights, "float64") / sum(weights)
    counts = np.floor(exact).astype(int)
    largest = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return tuple(int(count) for count in counts)
