"""k-NN and linear probe of encoders, all on the same images."""

import numpy as np

from experiments.data.subset import balanced_part
from experiments.errors import UserError
from experiments.evaluation.probes import knn_top1, linear_top1

FROZEN_PROBES = ("knn", "linear")


class FrozenProbes:
    """What k-NN and a linear probe read from the frozen features of an encoder.

    They learn from the train split of a source. The linear probe chooses its regularization on the validation split,
    unless the figures are taken on that or there is none; then it has the default one.

    Args:
        source: the `Source`.
        target: name of the split on which the figures are taken, `test` or `validation`.
        probes: `knn`, `linear`, or both.
        max_images: largest number of images to learn from, and of images that the figures are taken on; 0 for all.
            Those to learn from are balanced over the classes.
        seed: of the choice of the images, where there are more.

    Raises:
        UserError: if the source has no labels or lacks a split.
    """

    def __init__(self, source, target, probes=FROZEN_PROBES, max_images=0, seed=0):
        if not source.num_classes:
            raise UserError(f"{source.name} has no labels to evaluate with.")
        self._probes = probes
        self.train, self.target = source.split("train"), source.split(target)
        validation = source.get("validation") if "linear" in probes and target != "validation" else None
        if max_images and max_images < self.train.num_examples:
            self.train = balanced_part(self.train, max_images, seed)
        self.target = _at_most(self.target, max_images, seed)
        self._validation = validation and _at_most(validation, max_images, seed)

    def __call__(self, features_of):
        """Returns `{probe: top-1 in percent}`, not a number for an encoder whose features are not finite.

        Args:
            features_of: the `PooledFeatures` of an encoder.
        """
        train, target = features_of(self.train), features_of(self.target)
        if not all(np.isfinite(features).all() for features, _ in (train, target)):
            return dict.fromkeys(self._probes, float("nan"))  # scikit-learn would raise; the run itself tells why
        figures = {}
        if "knn" in self._probes:
            figures["knn"] = knn_top1(train, target)
        if "linear" in self._probes:
            figures["linear"] = linear_top1(train, self._validation and features_of(self._validation), target)
        return figures


def _at_most(split, count, seed):
    """Returns the split, or `count` of its examples chosen at random where it has more; 0 for all."""
    if not 0 < count < split.num_examples:
        return split
    return split.take(np.sort(np.random.default_rng(seed).permutation(split.num_examples)[:count]))
