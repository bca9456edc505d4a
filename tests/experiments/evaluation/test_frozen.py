"""Which images the probes of frozen features learn from, choose by, and are scored on."""

import numpy as np
import pytest

from experiments.data.source import MemorySplit, Source
from experiments.errors import UserError
from experiments.evaluation import probes
from experiments.evaluation.probes import FrozenProbes


def make_source(class_names=("a", "b", "c"), **counts):
    """Splits whose images are numbered; two thirds are of class 0."""
    splits = {}
    for i, (name, count) in enumerate(counts.items()):
        labels = np.maximum(np.arange(count) % 6 - 3, 0)
        splits[name] = MemorySplit(np.array([b"%d" % (100 * i + j) for j in range(count)], dtype=object), labels)
    return Source("numbers", splits, class_names)


def features_of(split):
    """The number of each image in place of its features."""
    return np.array([[int(content)] for content in split.contents]), split.labels


@pytest.fixture(autouse=True)
def used(monkeypatch):
    """What the two probes are given, `{probe: (train, validation, test)}`."""
    used = {}

    def knn_top1(train, test):
        used["knn"] = (train, None, test)
        return 1.0

    def linear_top1(*parts):
        used["linear"] = parts
        return 2.0

    monkeypatch.setattr(probes, "knn_top1", knn_top1)
    monkeypatch.setattr(probes, "linear_top1", linear_top1)
    return used


def numbers(part):
    return [int(number) for number in part[0][:, 0]]


def test_they_learn_from_train_choose_by_validation_and_are_scored_on_test(used):
    assert FrozenProbes(make_source(train=9, validation=4, test=5), "test")(features_of) == {"knn": 1.0, "linear": 2.0}
    for name, (train, validation, test) in used.items():
        assert (numbers(train), numbers(test)) == (list(range(9)), list(range(200, 205)))
        assert validation is None if name == "knn" else numbers(validation) == list(range(100, 104))


@pytest.mark.parametrize("broken", ["train", "test"])
def test_features_of_an_encoder_that_diverged_have_no_figures(used, broken):
    source = make_source(train=9, validation=4, test=5)

    def diverged(split):
        features, labels = features_of(split)
        return features * (np.nan if split is source.splits[broken] else 1.0), labels

    figures = FrozenProbes(source, "test")(diverged)
    assert list(figures) == ["knn", "linear"] and np.isnan(list(figures.values())).all() and not used


@pytest.mark.parametrize("unreadable", ["train", "validation", "test"])
def test_a_split_of_which_no_image_can_be_read(used, unreadable):
    source = make_source(train=9, validation=4, test=5)

    def readable(split):
        features, labels = features_of(split)
        count = 0 if split is source.splits[unreadable] else len(labels)
        return features[:count], labels[:count]

    frozen_probes = FrozenProbes(source, "test")
    if unreadable == "train":
        with pytest.raises(UserError, match="No labelled training image can be read"):
            frozen_probes(readable)
    else:
        figures = frozen_probes(readable)
        assert figures == ({"knn": 0.0, "linear": 0.0} if unreadable == "test" else {"knn": 1.0, "linear": 2.0})
        assert frozen_probes.unreadable == (5 if unreadable == "test" else 0)
        assert unreadable == "test" or used["linear"][1] is None  # nothing to choose by


def test_what_they_are_scored_on_chooses_nothing(used):
    FrozenProbes(make_source(train=9, validation=4, test=5), "validation")(features_of)
    for train, validation, target in used.values():
        assert (numbers(train), validation, numbers(target)) == (list(range(9)), None, list(range(100, 104)))


def test_one_probe_alone(used):
    source = make_source(train=9, test=5)
    assert FrozenProbes(source, "test", probes=("knn",))(features_of) == {"knn": 1.0}
    assert FrozenProbes(source, "test", probes=("linear",))(features_of) == {"linear": 2.0}
    assert used["linear"][1] is None  # there is no validation


def test_of_many_images_some_are_chosen_by_the_seed_those_to_learn_from_balanced(used):
    source = make_source(train=90, validation=80, test=70)

    def chosen(seed, target="test"):
        FrozenProbes(source, target, max_images=12, seed=seed)(features_of)
        return tuple(used["linear"])

    train, validation, test = chosen(0)
    np.testing.assert_array_equal(np.bincount(train[1]), [4, 4, 4])
    for part, first, count in ((train, 0, 90), (validation, 100, 80), (test, 200, 70)):
        found = numbers(part)
        assert found == sorted(set(found)) and len(found) == 12
        assert first <= found[0] and found[-1] < first + count and found != list(range(first, first + 12))
    assert [numbers(part) for part in chosen(0)] == [numbers(part) for part in (train, validation, test)]
    assert all(numbers(one) != numbers(other) for one, other in zip(chosen(1), (train, validation, test)))


def test_fewer_images_than_asked_for_are_all_of_them(used):
    FrozenProbes(make_source(train=9, validation=4, test=5), "test", max_images=6)(features_of)
    train, validation, test = used["linear"]
    assert (len(train[1]), len(validation[1]), len(test[1])) == (6, 4, 5)


def test_without_labels_or_images_it_is_an_error():
    with pytest.raises(UserError, match="numbers has no labels to evaluate with."):
        FrozenProbes(make_source((), train=9, test=5), "test")
    with pytest.raises(UserError, match="numbers has no validation images; it has train, test."):
        FrozenProbes(make_source(train=9, test=5), "validation")
