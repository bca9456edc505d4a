"""What a classifier says about images, and how often it is right."""

import numpy as np
import tensorflow as tf

from experiments.data.pipeline import evaluation_batches


class Predictions:
    """The classes of the images of a split, and those that a classifier takes them for.

    Each readable image with a label counts once, whatever the size of the batches, and whatever the number of devices
    that the classifier was made for: one of them does the work. Calling the object evaluates the classifier as it is at
    that moment.

    Args:
        classifier: a model with logits.
        split: labelled examples.
        preprocessing: the `Preprocessing` of the images.
        batch_size: images at a time.
    """

    def __init__(self, classifier, split, preprocessing, batch_size):
        self._batches = evaluation_batches(split, preprocessing, min(batch_size, split.num_examples), labelled=True)
        self._largest = tf.function(lambda images: tf.argmax(classifier(images, training=False), axis=-1))

    def __call__(self):
        """Returns `(labels, predicted)`, two arrays `(N,)` of integers."""
        labels, predicted = [], []
        for batch in self._batches:
            readable = batch["weights"].numpy() > 0
            labels.append(batch["labels"].numpy()[readable])
            predicted.append(self._largest(batch["images"]).numpy()[readable])
        return np.concatenate(labels), np.concatenate(predicted)


class TopOne:
    """The share of the images of a split, in percent, whose largest logit is that of their class.

    Args:
        *arguments: of `Predictions`.
    """

    def __init__(self, *arguments):
        self._predictions = Predictions(*arguments)

    def __call__(self):
        return top_one(*self._predictions())


def top_one(labels, predicted):
    """Returns the share of equal ones, in percent; 0 for none."""
    return float(100.0 * np.count_nonzero(labels == predicted) / max(len(labels), 1))
