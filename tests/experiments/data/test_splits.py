"""A few labels: how many, of which class, and which."""

import re

import numpy as np
import pytest

from experiments.data.source import MemorySplit
from experiments.data.splits import balanced_part, label_subset
from experiments.errors import UserError
from tests.experiments.images import numbered

# 30, 50 and 20 examples of three classes, mixed.
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [30, 50, 20]))
SPLIT = MemorySplit(np.arange(100).astype(object), LABELS)


def chosen(spec, seed=0, split=SPLIT):
    subset = label_subset(split, spec, 3, seed)
    indices = subset.contents.astype(int)
    np.testing.assert_array_equal(subset.labels, split.labels[indices])
    assert (np.diff(indices) > 0).all()  # in the order of the split, none twice
    return indices


@pytest.mark.parametrize(
    ("spec", "counts"),
    [
        ("10%", [3, 3, 4]),
        ("100", [30, 50, 20]),
        ("100%", [30, 50, 20]),
        ("9", [3, 3, 3]),
        (" 9 ", [3, 3, 3]),
        ("3", [1, 1, 1]),
        ("3 per class", [3, 3, 3]),
        ("20 per class", [20, 20, 20]),
        ("70", [25, 25, 20]),
        ("90", [30, 40, 20]),
    ],
)
def test_the_classes_are_balanced_as_far_as_they_go(spec, counts):
    found = np.bincount(LABELS[chosen(spec)], minlength=3)
    assert sorted(found) == sorted(counts)
    if max(counts) > 4:  # beyond the evenly divided the classes differ in what they have
        np.testing.assert_array_equal(found, counts)


def test_images_of_several_classes_are_drawn_without_balance():
    sets = np.eye(3, dtype=bool)
    split = MemorySplit(SPLIT.contents, np.where(LABELS == 1, -1, LABELS))
    for spec, count in (("12", 12), ("10%", 5)):
        found = label_subset(split, spec, 3, 0, sets)
        assert len(found.labels) == count and (found.labels >= 0).all() and (np.diff(found.contents) > 0).all()
    assert label_subset(split, "all", 3, 0, sets) is split
    drawn = {tuple(label_subset(split, "12", 3, seed, sets).contents) for seed in (0, 0, 1, 2)}
    assert len(drawn) == 3
    for spec, message in (
        ("2 per class", "is for images of one class each; give a number"),
        ("51", "asks for 51 of 50"),
    ):
        with pytest.raises(UserError, match=message):
            label_subset(split, spec, 3, 0, sets)


def test_all_is_the_split_itself():
    assert label_subset(SPLIT, "all", 3, 0) is SPLIT


def test_the_choice_follows_from_the_seed():
    np.testing.assert_array_equal(chosen("12"), chosen("12"))
    choices = [tuple(chosen("12", seed)) for seed in range(6)]
    assert len(set(choices)) == 6
    # Anything may be chosen, not only what comes first.
    assert max(max(choice) for choice in choices) > 80 and min(min(choice) for choice in choices) < 20


def test_a_larger_choice_holds_the_smaller_one():
    assert set(chosen("6")) <= set(chosen("12")) <= set(chosen("20 per class"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("some", "finetune.labels='some' is not all, a number (100), a share (1%) or '10 per class'."),
        ("²", "finetune.labels='²' is not all, a number (100), a share (1%) or '10 per class'."),
        ("9" * 5000, "9999' is not all, a number (100), a share (1%) or '10 per class'."),
        (f"{'9' * 5000} per class", "9999 per class' is not all, a number (100), a share (1%) or '10 per class'."),
        (f"{'9' * 5000}%", "9999%' is not all, a number (100), a share (1%) or '10 per class'."),
        ("-3", "finetune.labels='-3' is not all, a number (100), a share (1%) or '10 per class'."),
        ("", "finetune.labels='' is not all"),
        ("3 per image", "finetune.labels='3 per image' is not all"),
        ("0", "finetune.labels='0' asks for 0 of 100 labelled images."),
        ("0.1%", "finetune.labels='0.1%' asks for 0 of 100 labelled images."),
        (
            "2.5%",
            "finetune.labels='2.5%' asks for 2 images, fewer than the 3 classes; the smallest number is 3.",
        ),
        ("101", "finetune.labels='101' asks for 101 of 100 labelled images."),
        ("34 per class", "finetune.labels='34 per class' asks for 102 of 100 labelled images."),
    ],
)
def test_what_cannot_be_chosen_is_refused(spec, message):
    with pytest.raises(UserError, match=re.escape(message)):
        label_subset(SPLIT, spec, 3, 0)


@pytest.mark.parametrize("spec", ["21 per class", "33 per class"])
def test_more_per_class_than_a_class_has_is_refused(spec):
    """One class has 20 examples, so the choice could not be what it says."""
    message = f"finetune.labels={spec!r} asks for more than the 20 images of the smallest class."
    with pytest.raises(UserError, match=re.escape(message)):
        label_subset(SPLIT, spec, 3, 0)


def test_images_stay_with_their_labels():
    split = MemorySplit(numbered(30), np.arange(30) % 3)
    subset = label_subset(split, "4 per class", 3, seed=1)
    lookup = {content: label for content, label in zip(split.contents, split.labels)}
    assert [lookup[content] for content in subset.contents] == list(subset.labels)


def test_images_without_a_label_are_never_chosen():
    labels = np.where(np.arange(100) % 4 == 0, -1, LABELS)
    split = MemorySplit(np.arange(100).astype(object), labels)
    assert not (chosen("30", split=split) % 4 == 0).any()
    labelled = label_subset(split, "100%", 3, 0).labels
    np.testing.assert_array_equal(np.bincount(labelled), np.bincount(labels[labels >= 0]))


def test_an_empty_class_leaves_nothing_per_class():
    with pytest.raises(UserError, match="asks for more than the 0 images of the smallest class."):
        label_subset(SPLIT, "1 per class", 4, 0)


def test_the_smallest_number_counts_the_classes_that_have_images():
    assert len(label_subset(SPLIT, "3", 5, 0).labels) == 3


def test_a_balanced_part_may_be_smaller_than_the_number_of_classes_or_all_there_is():
    np.testing.assert_array_equal(
        np.sort(np.bincount(balanced_part(SPLIT, SPLIT.labels, 2, 0).labels, minlength=3)), [0, 1, 1]
    )
    unlabelled = MemorySplit(SPLIT.contents, np.where(np.arange(100) < 40, LABELS, -1))
    np.testing.assert_array_equal(balanced_part(unlabelled, unlabelled.labels, 50, 0).contents, np.arange(40))
    np.testing.assert_array_equal(
        balanced_part(SPLIT, SPLIT.labels, 12, 4).contents, label_subset(SPLIT, "12", 3, 4).contents
    )
