"""Top-1 of a classifier."""

import numpy as np
import tensorflow as tf

from experiments.data.pipeline import evaluation_batches


def top1(classifier, split, preparation, batch_size):
    """Returns the share of the images of a split, in percent, whose largest logit is that of their class.

    Each readable image counts once.

    Args:
        classifier: a model with logits.
        split: labelled examples.
        preparation: the `Preparation` of the images.
        batch_size: images at a time.
    """

    @tf.function
    def correct(batch):
        predicted = tf.argmax(classifier(batch["images"], training=False), axis=-1)
        hits = tf.cast(predicted == batch["labels"], tf.float32) * batch["weights"]
        return tf.reduce_sum(hits), tf.reduce_sum(batch["weights"])

    batch_size = min(batch_size, split.num_examples)
    counts = [correct(batch) for batch in evaluation_batches(split, preparation, batch_size)]
    hits, total = np.sum([[float(value) for value in pair] for pair in counts], axis=0)
    return 100.0 * hits / total
