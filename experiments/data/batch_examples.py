"""Which examples a batch of training had, found again afterwards."""

import numpy as np

from experiments.data.pipeline import endless_examples


def examples_of_batch(split, batch_size, seed, step):
    """Returns where the examples of a training batch are, in its order, without reading any of them.

    Args:
        split: the examples that are trained on.
        batch_size: images of a batch.
        seed: integer.
        step: number of the optimizer step that takes the batch, from 1.

    Returns:
        A list of `batch_size` dictionaries, see `MemorySplit.find`.
    """
    examples = endless_examples(split.numbered(), seed, batch_size, np.arange(batch_size), step - 1)
    contents = [content for _, content, _ in examples.take(batch_size).as_numpy_iterator()]
    return [split.find((content[-1] if isinstance(content, tuple) else content).decode()) for content in contents]
