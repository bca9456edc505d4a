"""Evaluation on all devices: each takes whole batches in turn, so metrics equal those of one device, bit for bit."""

import contextlib
import itertools

import numpy as np
import tensorflow as tf


class Devices:
    """The devices of this process; inside `sharing`, those of all workers.

    Args:
        strategy: the `tf.distribute.Strategy` that the models are made in; None for a single device.
        workers: the `Workers` of a run; None for a process that works alone.
    """

    def __init__(self, strategy=None, workers=None):
        self._strategy = strategy
        self._workers = workers if workers and workers.count > 1 else None
        self._count = len(strategy.extended.worker_devices) if strategy else 1  # of this process
        self._is_sharing = False

    @contextlib.contextmanager
    def sharing(self):
        """Context in which each worker evaluates its share of the batches, and all workers get all results.

        All workers must make the same evaluations in the same order.
        """
        self._is_sharing = True
        try:
            yield
        finally:
            self._is_sharing = False

    def mapping(self, function):
        """Returns the function that applies another to batches, on all devices.

        Args:
            function: from a batch, a dictionary of tensors, to a tuple of tensors `(B, ...)`.

        Returns:
            A function of a data set of equally large batches, and their number. It yields the result of `function` for
            each batch, in order: a tuple of NumPy arrays.
        """

        @tf.function(autograph=False)
        def apply(batches):
            if self._count == 1:
                return [function(batches)]
            outputs = self._strategy.run(function, args=(batches,))
            return list(zip(*map(self._strategy.experimental_local_results, outputs)))

        def outputs(batches, total):
            if self._workers and self._is_sharing:
                return self._of_all_workers(apply, batches, total)
            return self._of_own(apply, batches)

        return outputs

    def _of_own(self, apply, batches):
        """Yields the outputs of batches, which the devices of this process take in turn."""
        remaining = iter(batches)
        while group := list(itertools.islice(remaining, self._count)):
            for output in apply(self._distributed(group))[: len(group)]:
                yield tuple(value.numpy() for value in output)

    def _distributed(self, group):
        if self._count == 1:
            return group[0]
        # Devices without a batch at the end repeat the last one; their outputs are dropped.
        group = group + group[-1:] * (self._count - len(group))
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: group[context.replica_id_in_sync_group % self._count]
        )

    def _of_all_workers(self, apply, batches, total):
        """Yields the outputs of all batches, after each worker has evaluated every `count`-th of them."""
        count, index = self._workers.count, self._workers.index
        own = list(self._of_own(apply, batches.shard(count, index)))
        shapes = own[0] if own else next(self._of_own(apply, batches.take(1)))  # for workers without a batch
        gathered = []
        for i, value in enumerate(shapes):
            outputs = np.zeros((total, *value.shape), value.dtype)
            for place, output in zip(range(index, total, count), own):
                outputs[place] = output[i]
            gathered.append(self._workers.summed(outputs))
        yield from zip(*gathered)
