"""Features of an encoder, averaged over the positions."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from convnext.backbone import ConvNeXt, pool
from experiments.data.pipeline import evaluation_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import Split
from experiments.evaluation.devices import Devices
from experiments.types import Batch


@dataclasses.dataclass(frozen=True)
class FeatureBatch:
    """The features of some consecutive images of a split.

    Args:
        positions: `(N,)` positions in the split of the images that have features.
        features: `(N, C)` float32.
        labels: `(N,)` int64, -1 without label.
        left_out: positions of images that cannot be read or lack a label that is needed.
    """

    positions: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    left_out: np.ndarray


class PooledFeatures:
    """The last feature map of an encoder, averaged over its positions, of images preprocessed for evaluation.

    Args:
        encoder: a `ConvNeXt`, with or without head.
        preprocessing: the `Preprocessing` of the images.
        batch_size: images at a time.
        devices: the `Devices` that do the work; None for one.
    """

    def __init__(
        self, encoder: ConvNeXt, preprocessing: Preprocessing, batch_size: int, devices: Devices | None = None
    ) -> None:
        self._preprocessing = preprocessing
        self._batch_size = batch_size
        self._datasets: dict[tuple, tuple] = {}  # by split: a data set takes longer to make than a few images

        def features_of(batch: Batch) -> tuple[tf.Tensor, ...]:
            features = pool(encoder.extract_features(batch["images"], training=False)[-1])
            return batch["weights"], tf.cast(features, tf.float32), batch["labels"]

        self._outputs = (devices or Devices()).mapping(features_of)

    def __call__(self, split: Split, labelled: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Returns the features of a split, in its order and without images that cannot be read.

        Args:
            split: the examples.
            labelled: whether images without a label are left out as well.

        Returns:
            `(features, labels)`, NumPy `(N, C)` float32 and `(N,)` int64.
        """
        parts = list(self.batches(split, labelled))
        return np.concatenate([part.features for part in parts]), np.concatenate([part.labels for part in parts])

    def batches(self, split: Split, labelled: bool = False, description: str = "") -> Iterator[FeatureBatch]:
        """Yields a `FeatureBatch` for each batch of a split, in its order.

        Args:
            split: the examples.
            labelled: whether images without a label are left out.
            description: text in front of a progress bar, which is shown only on a terminal; empty for no bar.
        """
        batch_size = self._batch_size  # also for fewer images: splits of all sizes share one compiled function
        key = (id(split), labelled)
        if key not in self._datasets:
            batches = evaluation_batches(split, self._preprocessing, batch_size, labelled)
            self._datasets[key] = split, batches  # the split is kept, so that no other gets its `id`
        _, batches = self._datasets[key]
        total, hidden = -(-split.num_examples // batch_size), None if description else True
        outputs = tqdm(self._outputs(batches, total), description, total, leave=False, disable=hidden)
        for i, output in enumerate(outputs):
            positions = np.arange(i * batch_size, min((i + 1) * batch_size, split.num_examples))
            weights, features, labels = (value[: len(positions)] for value in output)
            kept = weights > 0
            yield FeatureBatch(positions[kept], features[kept], labels[kept], positions[~kept])
