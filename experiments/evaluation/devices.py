"""Evaluation on all devices: each takes whole batches in turn, so metrics equal those of one device, bit for bit."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from experiments.types import Batch

if TYPE_CHECKING:
    from experiments.training.distributed.workers import Workers


class Devices:
    """The devices that evaluate: those of this process or, in a run of several workers, those of all.

    Args:
        strategy: the `tf.distribute.Strategy` that the models are made in; None for a single device.
        workers: the `Workers` of a run, each of which evaluates its share of the batches and gets all results: all make
            the same evaluations in the same order. None for a process that works alone.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None, workers: "Workers | None" = None) -> None:
        self._strategy = strategy
        self._workers = workers if workers and workers.count > 1 else None
        self._count = len(strategy.extended.worker_devices) if strategy else 1  # of this process

    def mapping(
        self, function: Callable[[Batch], tuple[tf.Tensor, ...]]
    ) -> Callable[[tf.data.Dataset, int], Iterator[tuple[np.ndarray, ...]]]:
        """Returns the function that applies another to batches, on all devices.

        Args:
            function: from a batch, a dictionary of tensors, to a tuple of tensors `(B, ...)`.

        Returns:
            A function of a data set of equally large batches, and their number. It yields the result of `function` for
            each batch, in order: a tuple of NumPy arrays.
        """
        apply = self.own_mapping(function)

        def outputs(batches: tf.data.Dataset, total: int) -> Iterator[tuple[np.ndarray, ...]]:
            return self._of_all_workers(apply, batches, total) if self._workers else apply(batches)

        return outputs

    def own_mapping(
        self, function: Callable[[Any], tuple[tf.Tensor, ...]], spec: tf.TensorSpec | None = None
    ) -> Callable[[Iterable[Any]], Iterator[tuple[np.ndarray, ...]]]:
        """Returns the function that applies another to batches, on the devices of this process.

        Args:
            function: from a batch to a tuple of tensors.
            spec: the `tf.TensorSpec` of a batch, for which there is one graph; None for one for each shape.

        Returns:
            A function of an iterable of batches that yields the result for each, in order: a tuple of NumPy arrays.
        """

        @tf.function(autograph=False, input_signature=spec and [[spec] * self._count])
        def apply(group: Sequence[Any]) -> list[tuple[tf.Tensor, ...]]:
            if self._count == 1:
                return [function(group[0])]
            assert self._strategy is not None
            batches = self._strategy.experimental_distribute_values_from_function(
                lambda context: group[context.replica_id_in_sync_group % self._count]
            )
            outputs = self._strategy.run(function, args=(batches,))
            return list(zip(*map(self._strategy.experimental_local_results, outputs)))

        def outputs(batches: Iterable[Any]) -> Iterator[tuple[np.ndarray, ...]]:
            remaining = iter(batches)
            while group := list(itertools.islice(remaining, self._count)):
                # Devices without a batch at the end repeat the last one; their outputs are dropped.
                for output in apply(group + group[-1:] * (self._count - len(group)))[: len(group)]:
                    yield tuple(value.numpy() for value in output)

        return outputs

    def own_positions(self, total: int, batch_size: int) -> np.ndarray:
        """Returns the positions of those of `total` examples that are in the batches of this worker."""
        positions = np.arange(total)
        count, index = (self._workers.count, self._workers.index) if self._workers else (1, 0)
        return positions[positions // batch_size % count == index]

    def summed(self, array: np.ndarray) -> np.ndarray:
        """Returns the sum of a NumPy array over all workers."""
        return self._workers.summed(array) if self._workers else array

    def _of_all_workers(
        self, apply: Callable[[tf.data.Dataset], Iterator[tuple[np.ndarray, ...]]], batches: tf.data.Dataset, total: int
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields the outputs of all batches, after each worker has evaluated every `count`-th of them."""
        assert self._workers is not None
        count, index = self._workers.count, self._workers.index
        own = list(apply(batches.shard(count, index)))
        shapes = own[0] if own else next(apply(batches.take(1)))  # for workers without a batch
        gathered = []
        for i, value in enumerate(shapes):
            outputs = np.zeros((total, *value.shape), value.dtype)
            for place, output in zip(range(index, total, count), own):
                outputs[place] = output[i]
            gathered.append(self._workers.summed(outputs))
        yield from zip(*gathered)
