"""Predictions of a classifier and their metrics: top-1; for multi-label classifiers, average precision and F1."""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf
from sklearn import metrics

from experiments.data.pipeline import evaluation_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import Split
from experiments.evaluation.devices import Devices
from experiments.types import Batch

THRESHOLD = 0.5  # probability from which a multi-label classifier predicts a class


class Predictions:
    """The labels of the images of a split, and the predictions of a classifier.

    Each readable image with a label counts once, whatever the size of the batches and the number of devices; the others
    are left out and counted. Calling the object evaluates the current weights of the classifier.

    Args:
        classifier: a model with logits.
        split: labelled examples.
        preprocessing: the `Preprocessing` of the images.
        batch_size: images at a time.
        label_sets: see `Source`; None where a label is a class.
        devices: the `Devices` that do the work; None for one.
    """

    def __init__(
        self,
        classifier: keras.Model,
        split: Split,
        preprocessing: Preprocessing,
        batch_size: int,
        label_sets: np.ndarray | None = None,
        devices: Devices | None = None,
    ) -> None:
        self._num_examples = split.num_examples
        batch_size = min(batch_size, split.num_examples)
        self._batches = evaluation_batches(split, preprocessing, batch_size, labelled=True)
        self._num_batches = -(-split.num_examples // batch_size)
        self._label_sets = label_sets

        def answer(batch: Batch) -> tuple[tf.Tensor, ...]:
            logits = classifier(batch["images"], training=False)
            answers = tf.argmax(logits, axis=-1) if label_sets is None else tf.sigmoid(tf.cast(logits, tf.float32))
            return batch["weights"], batch["labels"], answers

        self._answers = (devices or Devices()).mapping(answer)

    def __call__(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Returns `(labels, predicted, unreadable)`; with `label_sets` `(targets, scores, unreadable)`.

        Labels and predicted classes are integers, `(N,)`; targets are booleans and scores the probabilities of the
        sigmoids, both `(N, num_classes)`; `unreadable` is the number of images that are left out.
        """
        all_labels: list[np.ndarray] = []
        all_answers: list[np.ndarray] = []
        for weights, of_batch, answered in self._answers(self._batches, self._num_batches):
            all_labels.append(of_batch[weights > 0])
            all_answers.append(answered[weights > 0])
        labels, answers = np.concatenate(all_labels), np.concatenate(all_answers)
        targets = labels if self._label_sets is None else self._label_sets[labels]
        return targets, answers, self._num_examples - len(labels)


def classification_metrics(labels: np.ndarray, answers: np.ndarray, unreadable: int = 0) -> dict[str, float]:
    """Returns the metrics of what `Predictions` returns, in percent; the first one selects the best classifier.

    They are `{"top1": ...}` or, for multi-label classifiers, `map`, the mean average precision over the classes, and
    `f1`, the mean F1 over the classes at a threshold of 0.5. Classes without images count in neither. Without images,
    or with probabilities that are not finite, metrics are 0. The number `unreadable` is among them if it is not 0.
    """
    left_out = {"unreadable": unreadable} if unreadable else {}
    if labels.ndim == 1:
        return {"top1": top_one(labels, answers), **left_out}
    present = labels.any(axis=0)
    if not present.any() or not np.isfinite(answers).all():  # scikit-learn would raise
        return {"map": 0.0, "f1": 0.0, **left_out}
    labels, answers = labels[:, present], answers[:, present]
    precision = metrics.average_precision_score(labels, answers, average="macro")
    f1 = metrics.f1_score(labels, answers > THRESHOLD, average="macro", zero_division=0.0)
    return {"map": 100.0 * float(precision), "f1": 100.0 * float(f1), **left_out}


def notes_on_predictions(split: str, num_examples: int, unreadable: int) -> Iterator[str]:
    """Yields lines for the user about what the metrics of a split of `num_examples` images leave out."""
    if unreadable:
        yield f"{split}: {unreadable:,} of {num_examples:,} images cannot be read or have no label, and are left out"
    if unreadable == num_examples:
        yield f"{split}: no image is left, so the figures are 0 and mean nothing"


def top_one(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Returns the share of correct predictions, in percent; 0 without images."""
    return float(100.0 * np.count_nonzero(labels == predicted) / max(len(labels), 1))


def confusion(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns how often each class (row) is predicted as each class (column), `(num_classes, num_classes)` int64.

    Args:
        labels: integers, of any shape; negative ones do not count.
        predicted: the same shape, from 0 on.
        num_classes: number of classes.
    """
    counts = labels >= 0
    pairs = labels[counts].astype(np.int64) * num_classes + predicted[counts]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
