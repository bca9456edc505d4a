"""Features of the images of a split, batch by batch."""

import dataclasses

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from convnext.backbone import pool
from experiments.data.pipeline import evaluation_batches


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What became of some images that follow each other in a split.

    Args:
        positions: `(N,)` positions in the split of those that could be read.
        features: `(N, C)` float32, their features.
        labels: `(N,)` int64, -1 without label.
        unreadable: positions of the others.
    """

    positions: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    unreadable: np.ndarray


class Embedding:
    """Gives images the last feature map of an encoder, averaged over its positions.

    Args:
        encoder: a `ConvNeXt`, with or without head.
        preparation: the `Preparation` of the images, which are seen as evaluation sees them.
        batch_size: images at a time.
    """

    def __init__(self, encoder, preparation, batch_size):
        self._preparation = preparation
        self._batch_size = batch_size
        self._features_of = tf.function(lambda images: pool(encoder.extract_features(images, training=False)[-1]))

    def __call__(self, split, description=""):
        """Yields an `Embedded` for each batch of a split, in its order.

        Args:
            split: the examples.
            description: shown in front of the bar of progress, where there is a terminal.
        """
        batch_size = min(self._batch_size, split.num_examples)
        batches = evaluation_batches(split, self._preparation, batch_size)
        total = -(-split.num_examples // batch_size)
        for i, batch in enumerate(tqdm(batches, description, total, leave=False, disable=None)):
            readable = batch["weights"].numpy() > 0
            positions = i * batch_size + np.arange(batch_size)
            readable, positions = (values[positions < split.num_examples] for values in (readable, positions))
            features, labels = (values.numpy()[: len(readable)][readable] for values in self._of(batch))
            yield Embedded(positions[readable], features.astype(np.float32), labels, positions[~readable])

    def _of(self, batch):
        return self._features_of(batch["images"]), batch["labels"]
