"""Parts of a split: what is held out for validation and test, and subsets of labels."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.config import DataConfig
    from experiments.data.segmentation_masks import ClassTable
    from experiments.data.source import MemorySplit

# A `Split`, or what else has `labels`, `num_examples` and `take`; what is taken of a stream is a `MemorySplit`.
AnySplit = TypeVar("AnySplit", bound=Any)

UNLABELLED = "unlabelled"  # images for pretraining alone


def held_out(num_examples: int, shares: Iterable[float]) -> list[np.ndarray]:
    """Draws parts of a data set at random; the same ones for the same arguments.

    Args:
        num_examples: size of the data set.
        shares: share of each part, numbers that sum to less than 1.

    Returns:
        A list of sorted index arrays: what remains, then each part.
    """
    order = np.random.default_rng(0).permutation(num_examples)
    counts = [round(num_examples * share) for share in shares]
    parts = np.split(order, np.cumsum(counts))
    return [np.sort(part) for part in (parts[-1], *parts[:-1])]


def check_shares(num_examples: int, shares: Mapping[str, float], name: str) -> list[str]:
    """Checks the whole numbers of images that the shares give.

    Args:
        num_examples: number of the training images that the shares are taken of.
        shares: `{part: share}` with the parts `validation` and `test`.
        name: of the data set, for messages.

    Returns:
        Lines for the user: the parts that get no image although their share is above 0.

    Raises:
        UserError: if no image is left to train on.
    """
    counts = {part: round(num_examples * share) for part, share in shares.items()}
    if 0 < num_examples <= sum(counts.values()):
        fields = " and ".join(f"data.{part}_share={share:g}" for part, share in shares.items() if share)
        raise UserError(f"{name}: {fields} leave none of {num_examples:,} images to train on; make them smaller.")
    return [
        f"no {part} images: data.{part}_share={share:g} of {num_examples:,} images comes to none"
        for part, share in shares.items()
        if share and not counts[part]
    ]


def with_held_out(
    splits: "dict[str, MemorySplit]", config: "DataConfig", with_test: bool, name: str
) -> "tuple[dict[str, MemorySplit], list[str]]":
    """Completes the splits of a source: those that are missing are drawn from the training images.

    Args:
        splits: `{name: split}`, with `train`, unless all images are there to evaluate on, and, where there are images
            for pretraining alone, `unlabelled`, which `pretrain` joins to the training images.
        config: the `DataConfig` with the shares of the training images that `validation` and `test` take.
        with_test: whether a missing `test` is drawn too.
        name: of the source, for messages.

    Returns:
        `(splits, notes)`, with lines for the user.

    Raises:
        UserError: if no image is left to train on.
    """
    if "train" not in splits:
        return splits, []
    shares = {"validation": config.validation_share, "test": config.test_share if with_test else 0.0}
    missing = {split: share for split, share in shares.items() if split not in splits}
    train = splits["train"]
    notes = check_shares(train.num_examples, missing, name)
    parts = held_out(train.num_examples, tuple(missing.values()))
    splits = splits | {split: train.take(part) for split, part in zip(("train", *missing), parts)}
    if UNLABELLED in splits:
        splits["pretrain"] = splits["train"].followed_by(splits[UNLABELLED])
    return splits, notes


def label_subset(
    split: AnySplit, spec: str, num_classes: int, seed: int, label_sets: "np.ndarray | ClassTable | None" = None
) -> AnySplit:
    """Returns the part of a split that fine-tuning may see.

    Args:
        split: the training split.
        spec: `all`, a number of examples (`100`), a share (`1%`), or `10 per class`.
        num_classes: number of classes.
        seed: integer; the choice is a function of it.
        label_sets: of the `Source`; not None for images of several classes, which are drawn without balancing them.

    Returns:
        The split itself for `all`, else a `MemorySplit`. Classes have equally many examples, up to one if the number is
        not divisible, and up to the number that the split has.

    Raises:
        UserError: if the text has none of these forms, or requests too many examples, or fewer than there are classes
            with images, so that some classes would have none.
    """
    if spec == "all":
        return split
    all_labels = split.labels  # of a stream, this reads all of it
    labels = all_labels[all_labels >= 0]
    count = _count(spec, len(labels), num_classes)
    if not 0 < count <= len(labels):
        raise UserError(f"finetune.labels={spec!r} asks for {count} of {len(labels)} labelled images.")
    if label_sets is not None:
        if "per class" in str(spec):
            raise UserError(
                f"finetune.labels={spec!r} is for images of one class each; give a number (100) or a share (1%)."
            )
        (labelled,) = np.nonzero(all_labels >= 0)
        return split.take(np.sort(np.random.default_rng(seed).permutation(labelled)[:count]))
    sizes = np.bincount(labels, minlength=num_classes)
    if count < (present := np.count_nonzero(sizes)):
        raise UserError(
            f"finetune.labels={spec!r} asks for {count} images, fewer than the {present} classes; the smallest number "
            f"is {present}."
        )
    smallest = sizes.min()
    if "per class" in str(spec) and count > smallest * num_classes:
        raise UserError(f"finetune.labels={spec!r} asks for more than the {smallest} images of the smallest class.")
    return balanced_part(split, all_labels, count, seed)


def balanced_part(split: AnySplit, labels: np.ndarray, count: int, seed: int) -> AnySplit:
    """Returns `count` labelled examples of a split, or all if it has no more, balanced as far as they go."""
    (labelled,) = np.nonzero(labels >= 0)
    chosen = _balanced(labels[labelled], count, np.random.default_rng(seed))
    return split.take(np.sort(labelled[chosen]))


def at_most(split: AnySplit, count: int, seed: int) -> AnySplit:
    """Returns the split, or `count` of its examples chosen at random where it has more; 0 for all."""
    if not 0 < count < split.num_examples:
        return split
    return split.take(np.sort(np.random.default_rng(seed).permutation(split.num_examples)[:count]))


def evenly_spread(split: AnySplit, count: int) -> AnySplit:
    """Returns `count` examples of a split, or all if it has fewer, at even distances: neighbours may look alike."""
    count = min(count, split.num_examples)
    return split.take(np.arange(count) * split.num_examples // max(count, 1))


def _count(spec: str, available: int, num_classes: int) -> int:
    text = str(spec).strip()
    if match := re.fullmatch(r"(\d{1,18}) per class", text):
        return int(match[1]) * num_classes
    if match := re.fullmatch(r"(\d{1,18}(?:\.\d+)?)%", text):
        return round(available * float(match[1]) / 100)
    if re.fullmatch(r"\d{1,18}", text):
        return int(text)
    raise UserError(f"finetune.labels={spec!r} is not all, a number (100), a share (1%) or '10 per class'.")


def _balanced(labels: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Returns up to `count` indices: the first of every class in random order, then the second of every class, ..."""
    order = generator.permutation(len(labels))
    rank = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    tie_break = generator.permutation(len(labels))
    return np.lexsort((tie_break, rank))[:count]
