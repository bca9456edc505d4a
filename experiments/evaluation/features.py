"""The features that an encoder gives to images."""

import numpy as np
import tensorflow as tf

from convnext.backbone import pool
from experiments.data.pipeline import evaluation_batches


class PooledFeatures:
    """What the probes work on: the last feature map of an encoder, averaged over its positions.

    Args:
        encoder: a `ConvNeXt`, with or without head.
        preprocessing: the `Preprocessing` of the images.
        batch_size: images at a time.
    """

    def __init__(self, encoder, preprocessing, batch_size):
        self._preparation = preprocessing
        self._batch_size = batch_size
        self._features_of = tf.function(lambda images: pool(encoder.extract_features(images, training=False)[-1]))

    def __call__(self, split):
        """Returns the features of a split, in its order and without images that cannot be read or have no label.

        Returns:
            `(features, labels)`, NumPy `(N, C)` float32 and `(N,)` int64.
        """
        features, labels = [], []
        for batch in evaluation_batches(split, self._preparation, self._batch_size, labelled=True):
            readable = batch["weights"].numpy() > 0
            features.append(self._features_of(batch["images"]).numpy()[readable].astype("float32"))
            labels.append(batch["labels"].numpy()[readable])
        return np.concatenate(features), np.concatenate(labels)
