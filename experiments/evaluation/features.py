"""The features that an encoder gives to images."""

import numpy as np
import tensorflow as tf

from convnext.backbone import pool
from experiments.data.pipeline import evaluation_batches


def pooled_features(encoder, split, preparation, batch_size):
    """Returns what the probes work on: the last feature map, averaged over its positions.

    Args:
        encoder: a `ConvNeXt`, with or without head.
        split: the examples.
        preparation: the `Preparation` of the images.
        batch_size: images at a time.

    Returns:
        `(features, labels)`, NumPy `(N, C)` float32 and `(N,)` int64, in the order of the split and without
        images that cannot be read.
    """

    @tf.function
    def features_of(images):
        return pool(encoder.extract_features(images, training=False)[-1])

    features, labels = [], []
    for batch in evaluation_batches(split, preparation, min(batch_size, split.num_examples)):
        readable = batch["weights"].numpy() > 0
        features.append(features_of(batch["images"]).numpy()[readable].astype("float32"))
        labels.append(batch["labels"].numpy()[readable])
    return np.concatenate(features), np.concatenate(labels)
