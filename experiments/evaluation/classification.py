"""Top-1 of a classifier."""

import numpy as np
import tensorflow as tf

from experiments.data.pipeline import evaluation_batches


class TopOne:
    """The share of the images of a split, in percent, whose largest logit is that of their class.

    Each readable image with a label counts once. Calling the object evaluates the classifier as it is at that moment.

    Args:
        classifier: a model with logits.
        split: labelled examples.
        preparation: the `Preparation` of the images.
        batch_size: images at a time.
    """

    def __init__(self, classifier, split, preparation, batch_size):
        self._batches = evaluation_batches(split, preparation, min(batch_size, split.num_examples), labelled=True)

        @tf.function
        def count(batch):
            predicted = tf.argmax(classifier(batch["images"], training=False), axis=-1)
            hits = tf.cast(predicted == batch["labels"], tf.float32) * batch["weights"]
            return tf.reduce_sum(hits), tf.reduce_sum(batch["weights"])

        self._count = count

    def __call__(self):
        counts = np.array([self._count(batch) for batch in self._batches], "float64")
        hits, total = counts.sum(axis=0)
        return float(100.0 * hits / max(total, 1.0))
