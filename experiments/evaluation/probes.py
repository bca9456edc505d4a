"""Measures of frozen features: k-NN and a linear classifier, and without labels their rank and spread."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from sklearn import exceptions, linear_model, neighbors, pipeline, preprocessing

from experiments.data.splits import at_most, balanced_part
from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.data.source import Source
    from experiments.evaluation.features import PooledFeatures

FROZEN_PROBES = ("knn", "linear")


class FrozenProbes:
    """The accuracy of k-NN and of a linear probe on the frozen features of an encoder.

    They are fitted to the train split of a source. The linear probe chooses its regularization on the validation split;
    if that is the target or missing, it uses the default.

    Args:
        source: the `Source`.
        target: name of the split to score on, `test` or `validation`.
        probes: `knn`, `linear`, or both.
        max_images: largest number of images to fit to, and of images to score on; 0 for all. Images to fit to are
            balanced over the classes.
        seed: of the choice of images, if there are more.

    Attributes:
        unreadable: images to score on that the last call left out: unreadable ones, and those without a label.

    Raises:
        UserError: if the source has no labels or lacks a split.
    """

    def __init__(
        self, source: "Source", target: str, probes: Sequence[str] = FROZEN_PROBES, max_images: int = 0, seed: int = 0
    ) -> None:
        if not source.num_classes:
            raise UserError(f"{source.name} has no labels to evaluate with.")
        self._probes = probes
        self.train, self.target = source.split("train"), source.split(target)
        validation = source.get("validation") if "linear" in probes and target != "validation" else None
        if max_images and max_images < self.train.num_examples:
            self.train = balanced_part(self.train, self.train.labels, max_images, seed)
        self.target = at_most(self.target, max_images, seed)
        self._validation = validation and at_most(validation, max_images, seed)
        self.unreadable = 0

    def __call__(self, features_of: "PooledFeatures") -> dict[str, float]:
        """Returns `{probe: top-1 in percent}`; NaN for an encoder whose features are not finite.

        Args:
            features_of: the `PooledFeatures` of an encoder.

        Raises:
            UserError: if no image to fit to can be read. Without images to score on, figures are 0.
        """
        train, target = features_of(self.train), features_of(self.target)
        self.unreadable = self.target.num_examples - len(target[1])
        if not len(train[1]):
            raise UserError("No labelled training image can be read, so there is nothing to fit the probes to.")
        if not len(target[1]):
            return dict.fromkeys(self._probes, 0.0)
        if not all(np.isfinite(features).all() for features, _ in (train, target)):
            return dict.fromkeys(self._probes, float("nan"))  # scikit-learn would raise; the run reports the cause
        figures = {}
        if "knn" in self._probes:
            figures["knn"] = knn_top1(train, target)
        if "linear" in self._probes:
            validation = features_of(self._validation) if self._validation else None
            figures["linear"] = linear_top1(train, validation if validation and len(validation[1]) else None, target)
        return figures


NEIGHBOURS = 20
TEMPERATURE = 0.07
REGULARIZATIONS = (0.01, 0.1, 1.0, 10.0)  # scikit-learn's C, among which validation chooses
MAX_ITERATIONS = 1000


def knn_top1(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    """Returns the top-1 in percent of a weighted k-NN on cosine similarity.

    20 neighbours, each with weight exp(similarity / 0.07), as in Wu et al. (https://arxiv.org/abs/1805.01978).

    Args:
        train: `(features, labels)`, `(N, C)` and `(N,)`.
        test: the same of the images to classify.
    """
    classifier = neighbors.KNeighborsClassifier(
        n_neighbors=min(NEIGHBOURS, len(train[1])),
        metric="cosine",
        weights=lambda distances: np.exp((1.0 - distances) / TEMPERATURE),
    )
    return 100.0 * classifier.fit(*train).score(*test)


def linear_top1(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray] | None,
    test: tuple[np.ndarray, np.ndarray],
) -> float:
    """Returns the top-1 in percent of a logistic regression on standardized features.

    Its regularization is the best one on the validation images.

    Args:
        train: `(features, labels)`, `(N, C)` and `(N,)`.
        validation: the same, to choose by; None for the default of scikit-learn.
        test: the same of the images to classify.
    """
    if validation is None:
        return 100.0 * _fitted(1.0, train).score(*test)
    candidates = [_fitted(c, train) for c in REGULARIZATIONS]
    scores = [candidate.score(*validation) for candidate in candidates]
    return 100.0 * candidates[int(np.argmax(scores))].score(*test)


def effective_rank(features: np.ndarray) -> float:
    """Returns the effective rank of features: RankMe (https://arxiv.org/abs/2210.02885, equation 1).

    It is the exponential of the entropy of the singular values, each as a share of their sum.

    Args:
        features: `(N, C)`; for a reliable estimate N should be several times C.

    Returns:
        From 1, if all features are multiples of one vector, to min(N, C); NaN if features are not finite.
    """
    if not np.isfinite(features).all():
        return float("nan")
    singular_values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    shares = singular_values / max(singular_values.sum(), np.finfo(np.float64).tiny)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def feature_std(features: np.ndarray) -> float:
    """Returns the spread of the directions of features (https://arxiv.org/abs/2011.10566, figure 2b).

    Args:
        features: `(N, C)`.

    Returns:
        The standard deviation of each channel of the features scaled to length one, averaged over the channels, times
        the square root of C: 0 if all images have the same direction, 1 if all directions are equally likely; NaN if
        features are not finite.
    """
    if not np.isfinite(features).all():
        return float("nan")
    features = features.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return float((features / np.maximum(lengths, 1e-12)).std(axis=0).mean() * np.sqrt(features.shape[1]))


def _fitted(c: float, train: tuple[np.ndarray, np.ndarray]) -> pipeline.Pipeline:
    """Returns the logistic regression of a regularization, fitted."""
    with warnings.catch_warnings():
        # With many images a weak regularization takes all iterations; it is judged as it is then.
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
        regression = linear_model.LogisticRegression(C=c, max_iter=MAX_ITERATIONS)
        return pipeline.make_pipeline(preprocessing.StandardScaler(), regression).fit(*train)
