"""Top-1, features and probes beside NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convnext.convnext_v2 import ConvNeXtV2
from experiments.data.pipeline import evaluation_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit
from experiments.evaluation import probes
from experiments.evaluation.classification import Predictions, classification_metrics, notes_on_predictions
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.probes import effective_rank, feature_std, knn_top1, linear_top1
from experiments.evaluation.reconstruction import ReconstructionLoss
from tests import references
from tests.experiments.images import encode, write
from tests.small_models import parts_of, randomize, small_fcmae, variables_of

PREPROCESSING = Preprocessing(16, 1, (0.5,), (0.25,))
COUNT = 23
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 16, 16), dtype=np.uint8)
IMAGES = ((PIXELS / 255 - 0.5) / 0.25).astype("float32")[..., None]
LABELS = np.random.default_rng(1).integers(0, 4, COUNT)
SPLIT = MemorySplit(np.array([encode(pixels) for pixels in PIXELS], dtype=object), LABELS)


@pytest.fixture(scope="module")
def classifier():
    model = ConvNeXtV2((1,), (4,), input_shape=(16, 16, 1), include_top=True, num_classes=4)
    randomize(variables_of(model))
    return model


@pytest.fixture
def split_with_broken_file(tmp_path):
    contents = [encode(pixels) for pixels in PIXELS]
    contents[5] = b"no image"
    paths = [str(write(tmp_path / f"{i:02}.png", content)).encode() for i, content in enumerate(contents)]
    return MemorySplit(np.array(paths, dtype=object), LABELS, are_paths=True)


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_top1_counts_every_image_once(classifier, batch_size):
    hits = np.asarray(classifier(IMAGES)).argmax(axis=1) == LABELS
    assert 0 < hits.sum() < COUNT
    expected = 100 * hits.sum() / COUNT
    found = classification_metrics(*Predictions(classifier, SPLIT, PREPROCESSING, batch_size)())
    assert found == pytest.approx({"top1": expected})


SETS = np.array([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]], bool)


@pytest.mark.parametrize("batch_size", [5, 100])
def test_several_classes_an_image_are_scored_by_a_sigmoid_each(classifier, batch_size):
    targets, scores, unreadable = Predictions(classifier, SPLIT, PREPROCESSING, batch_size, SETS)()
    assert unreadable == 0
    np.testing.assert_array_equal(targets, SETS[LABELS])
    expected = 1 / (1 + np.exp(-np.asarray(classifier(IMAGES), "float64")))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert 0 < np.count_nonzero(scores > 0.5) < scores.size


def test_precision_and_f1_of_several_classes_are_those_worked_out_by_hand():
    targets = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    scores = np.array([[0.9, 0.6, 0.1], [0.8, 0.7, 0.9], [0.7, 0.2, 0.1], [0.1, 0.4, 0.1]])
    # First class: hits at ranks 1 and 3; second: at ranks 1 and 4. The third has no image and counts in neither.
    precision = ((1 + 2 / 3) / 2 + (1 + 2 / 4) / 2) / 2
    f1 = (2 * 2 / (2 + 3) + 2 * 1 / (2 + 2)) / 2
    assert classification_metrics(targets, scores) == pytest.approx({"map": 100 * precision, "f1": 100 * f1})


@pytest.mark.parametrize("wrong", ["nothing to find", "not a number"])
def test_figures_of_several_classes_are_0_where_there_are_none(wrong):
    targets, scores = np.eye(3, dtype=bool), np.eye(3)
    if wrong == "nothing to find":
        targets[:] = False
    else:
        scores[1, 2] = np.nan
    assert classification_metrics(targets, scores) == {"map": 0.0, "f1": 0.0}


def test_top1_leaves_unreadable_images_out_and_counts_them(classifier, split_with_broken_file):
    hits = np.delete(np.asarray(classifier(IMAGES)).argmax(axis=1) == LABELS, 5)
    found = classification_metrics(*Predictions(classifier, split_with_broken_file, PREPROCESSING, 8)())
    assert found == pytest.approx({"top1": 100 * hits.sum() / (COUNT - 1), "unreadable": 1})
    assert list(notes_on_predictions("test", COUNT, 1)) == [
        "test: 1 of 23 images cannot be read or have no label, and are left out"
    ]
    assert list(notes_on_predictions("test", COUNT, 0)) == []
    assert "test: no image is left, so the figures are 0 and mean nothing" in notes_on_predictions("test", 4, 4)


def test_top1_is_that_of_the_classifier_at_the_moment(classifier):
    model = keras.models.clone_model(classifier)
    predict = Predictions(model, SPLIT, PREPROCESSING, 8)
    shares = []
    for label in range(4):
        model.get_layer("head").set_weights([np.zeros((4, 4)), np.eye(4)[label]])
        shares.append(classification_metrics(*predict())["top1"])
    np.testing.assert_allclose(shares, 100 * np.bincount(LABELS, minlength=4) / COUNT)


def test_features_are_the_mean_over_the_positions_of_the_last_stage(classifier):
    features, labels = PooledFeatures(classifier, PREPROCESSING, 5)(SPLIT)
    weights = {name: np.asarray(variable.value, "float64") for name, variable in variables_of(classifier).items()}
    expected = references.features(IMAGES.astype("float64"), weights, (1,))[-1].mean(axis=(1, 2))
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(labels, LABELS)


def test_features_leave_unreadable_images_out(classifier, split_with_broken_file):
    features, labels = PooledFeatures(classifier, PREPROCESSING, 8)(split_with_broken_file)
    expected, _ = PooledFeatures(classifier, PREPROCESSING, 8)(SPLIT)
    np.testing.assert_allclose(features, np.delete(expected, 5, axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(labels, np.delete(LABELS, 5))


@pytest.mark.parametrize(("labelled", "left_out"), [(False, [5]), (True, [5, 9])])
def test_batches_of_features_name_the_images_that_are_left_out(classifier, split_with_broken_file, labelled, left_out):
    labels = np.where(np.arange(COUNT) == 9, -1, LABELS)
    split = MemorySplit(split_with_broken_file.contents, labels, are_paths=True)
    parts = list(PooledFeatures(classifier, PREPROCESSING, 8).batches(split, labelled))
    assert [len(part.positions) + len(part.left_out) for part in parts] == [8, 8, 7]
    kept = np.delete(np.arange(COUNT), left_out)
    np.testing.assert_array_equal(np.concatenate([part.positions for part in parts]), kept)
    np.testing.assert_array_equal(np.concatenate([part.left_out for part in parts]), left_out)
    np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), labels[kept])
    expected, _ = PooledFeatures(classifier, PREPROCESSING, 8)(SPLIT)
    features = np.concatenate([part.features for part in parts])
    np.testing.assert_allclose(features, expected[kept], rtol=1e-4, atol=1e-5)


def blobs(count, spread, seed, classes=4, channels=6):
    """Noisy features around a centre for each class."""
    centres = np.random.default_rng(0).normal(size=(classes, channels))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return (centres[labels] + spread * rng.normal(size=(count, channels))).astype("float32"), labels


def naive_knn(train, test, neighbours=20, temperature=0.07):
    hits = 0
    for feature, label in zip(*test):
        similarity = [
            (float(feature @ other / np.linalg.norm(feature) / np.linalg.norm(other)), vote)
            for other, vote in zip(*train)
        ]
        votes = np.zeros(10)
        for value, vote in sorted(similarity, reverse=True)[:neighbours]:
            votes[vote] += np.exp(value / temperature)
        hits += votes.argmax() == label
    return 100 * hits / len(test[1])


@pytest.mark.parametrize(("spread", "count"), [(0.5, 200), (1.5, 200), (3.0, 90), (1.5, 12)])
def test_knn_equals_the_naive_version(spread, count):
    train, test = blobs(count, spread, 1), blobs(75, spread, 2)
    found = knn_top1(train, test)
    assert found == pytest.approx(naive_knn(train, test))
    assert 20 < found <= 100


def test_knn_weighs_near_neighbours_more():
    """Two very near neighbours against 18 far ones, which win without weights."""
    angles = np.r_[0.01, -0.01, np.full(18, 1.2), np.full(30, 3.0)]
    train = np.c_[np.cos(angles), np.sin(angles)], np.r_[1, 1, np.full(48, 0)]
    assert knn_top1(train, (np.array([[2.0, 0.0]]), np.array([1]))) == 100.0


def test_knn_takes_no_note_of_the_length_of_features():
    train, test = blobs(100, 1.5, 1), blobs(50, 1.5, 2)
    scale = np.random.default_rng(3).uniform(0.1, 10, (100, 1))
    assert knn_top1((train[0] * scale, train[1]), test) == pytest.approx(knn_top1(train, test))


def test_the_linear_probe_separates_what_is_separable():
    assert linear_top1(blobs(200, 0.1, 1), blobs(40, 0.1, 2), blobs(40, 0.1, 3)) == 100.0
    (features, labels), test = blobs(200, 0.1, 1), blobs(400, 0.1, 3)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert linear_top1((features, shuffled), None, test) < 60


@pytest.mark.filterwarnings("error")
def test_a_linear_probe_that_takes_all_iterations_is_no_warning(monkeypatch):
    monkeypatch.setattr(probes, "MAX_ITERATIONS", 1)
    generator = np.random.default_rng(0)
    split = generator.normal(size=(40, 5)).astype(np.float32), generator.integers(0, 2, 40)
    assert 0.0 <= linear_top1(split, None, split) <= 100.0
    assert 0.0 <= linear_top1(split, split, split) <= 100.0


def test_the_linear_probe_chooses_on_the_validation_images(monkeypatch):
    """Each regularization gives another classifier; the best on validation is the one that is tested."""

    class Constant:
        def __init__(self, c):
            self.c = c

        def score(self, features, labels):
            return {"validation": {0.01: 0.2, 0.1: 0.5, 1.0: 0.9, 10.0: 0.6}, "test": {1.0: 0.25}}[features][self.c]

    monkeypatch.setattr("experiments.evaluation.probes._fitted", lambda c, train: Constant(c))
    assert linear_top1(("train", None), ("validation", None), ("test", None)) == 25.0
    assert linear_top1(("train", None), None, ("test", None)) == 25.0


def test_a_probe_does_not_change_with_the_scale_of_a_feature():
    scale = np.array([1e-3, 1, 1e3, 1, 10, 0.1], "float32")
    parts = [blobs(count, 1.0, seed) for count, seed in ((200, 1), (50, 2), (100, 3))]
    scaled = [(features * scale, labels) for features, labels in parts]
    assert linear_top1(*scaled) == pytest.approx(linear_top1(*parts), abs=1.01)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 23, 100])
def test_the_reconstruction_loss_is_the_mean_over_all_images_whatever_the_batch_size(batch_size):
    fcmae = small_fcmae((16, 16, 1))
    randomize(parts_of(fcmae))
    (batch,) = evaluation_batches(SPLIT, PREPROCESSING, COUNT, num_patches=4, seed=3)
    visible = (batch["noise"].numpy().argsort(axis=1).argsort(axis=1) < 1).astype("float32")
    assert (visible.sum(axis=0) > 1).all()
    prediction = np.asarray(fcmae.predict_patches(tf.constant(IMAGES), tf.constant(visible)), "float64")
    losses = references.losses(prediction, references.targets(IMAGES.astype("float64"), 8), visible)
    loss = ReconstructionLoss(fcmae, SPLIT, PREPROCESSING, batch_size, seed=3)
    assert loss() == pytest.approx(losses.mean(), rel=1e-5) == loss()
    other_masks = ReconstructionLoss(fcmae, SPLIT, PREPROCESSING, batch_size, seed=4)
    assert other_masks() != pytest.approx(losses.mean(), rel=1e-3)


@pytest.mark.parametrize("directions", [1, 3, 8])
def test_the_effective_rank_counts_equally_strong_directions(directions):
    features = 5.0 * np.eye(8, dtype="float32")[np.arange(120) % directions]
    assert effective_rank(features) == pytest.approx(directions)


def test_the_effective_rank_is_that_of_its_equation():
    features = np.random.default_rng(0).normal(size=(200, 6)) * [9.0, 5.0, 2.0, 1.0, 0.5, 0.1]
    strengths = np.sqrt(np.linalg.eigvalsh(features.T @ features))
    shares = strengths / strengths.sum()
    assert effective_rank(features) == pytest.approx(np.prod(shares**-shares), rel=1e-9)


def test_the_standard_deviation_of_features_tells_a_collapse():
    features = np.random.default_rng(0).normal(size=(5000, 32)).astype("float32")
    assert feature_std(features) == pytest.approx(1.0, abs=0.02)
    assert feature_std(features * np.linspace(1, 9, 5000)[:, None]) == pytest.approx(1.0, abs=0.02)
    one_direction = np.linspace(1, 9, 50)[:, None] * features[:1]
    assert feature_std(one_direction) < 1e-6 and effective_rank(one_direction) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("figure", [effective_rank, feature_std])
def test_features_that_are_not_finite_have_no_figure(figure):
    assert np.isnan(figure(np.array([[1.0, np.nan], [2.0, 3.0]], "float32")))
    assert np.isfinite(figure(np.zeros((4, 3), "float32")))
