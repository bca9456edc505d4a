"""How much frozen features say about classes: k-NN and a linear probe, with scikit-learn's classifiers."""

import numpy as np
from sklearn import linear_model, neighbors, pipeline, preprocessing

NEIGHBOURS = 20
TEMPERATURE = 0.07
REGULARIZATIONS = (0.01, 0.1, 1.0, 10.0)  # scikit-learn's C, among which validation chooses


def knn_top1(train, test):
    """Returns the top-1 in percent of a weighted k-NN on cosine similarity.

    20 neighbours, each with weight exp(similarity / 0.07), as in Wu et al. (https://arxiv.org/abs/1805.01978).

    Args:
        train: `(features, labels)`, `(N, C)` and `(N,)`.
        test: the same of the images to classify.
    """
    classifier = neighbors.KNeighborsClassifier(
        n_neighbors=min(NEIGHBOURS, len(train[1])), metric="cosine", weights=_similarity_weights
    )
    return 100.0 * classifier.fit(*train).score(*test)


def linear_top1(train, validation, test):
    """Returns the top-1 in percent of a logistic regression on standardized features.

    Its regularization is the one that does best on the validation images.

    Args:
        train: `(features, labels)`, `(N, C)` and `(N,)`.
        validation: the same, to choose by; None for the default of scikit-learn.
        test: the same of the images to classify.
    """
    if validation is None:
        return 100.0 * _logistic_regression(1.0).fit(*train).score(*test)
    candidates = [_logistic_regression(c).fit(*train) for c in REGULARIZATIONS]
    scores = [candidate.score(*validation) for candidate in candidates]
    return 100.0 * candidates[int(np.argmax(scores))].score(*test)


def _similarity_weights(distances):
    return np.exp((1.0 - distances) / TEMPERATURE)


def _logistic_regression(c):
    return pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(C=c, max_iter=1000))
