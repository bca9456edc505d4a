"""Which images of a data set of TensorFlow Datasets are for what.

Each of `data.train_split`, `validation_split`, `test_split` and `pretrain_split` takes TensorFlow Datasets' syntax:
`train`, `train[:90%]`, `train[1000:]+extra`. Where a field is empty,

- `train` is the split of that name;
- `test` is the split `test`, or as the last resort, as with ImageNet, the split `validation`;
- `validation` is the split of that name where there is a test split besides, else the last `validation_share` of the
  training images;
- pretraining learns from the training images.

The rules for `test` and `validation` see no split of which a field for fine-tuning or evaluation takes a part. An image
that is trained on and evaluated on is an error, and so is one that is for validation and for the test: what chooses
must not be what the final figures are taken on.
"""

import dataclasses
import itertools

import tensorflow_datasets as tfds

from experiments.config.data import SPLIT_FIELDS
from experiments.data.held_out import check_shares
from experiments.errors import UserError


@dataclasses.dataclass(frozen=True)
class Range:
    """Some images of a split, one after the other: those from `start` up to but without `stop`."""

    split: str
    start: int
    stop: int

    def __str__(self):
        return f"{self.split}[{self.start}:{self.stop}]"

    def __len__(self):
        return self.stop - self.start

    def overlaps(self, other):
        """Whether an image is in both."""
        return self.split == other.split and max(self.start, other.start) < min(self.stop, other.stop)


def choose_ranges(available, config, name):
    """Finds out which images are for what.

    Args:
        available: TensorFlow Datasets' information on the splits, by their names.
        config: a `DataConfig`.
        name: of the data set, for messages.

    Returns:
        `({"train": [Range, ...], "validation": ..., ...}, notes)`, with lines for the user.

    Raises:
        UserError: if a field names what does not exist, images are for two purposes that have to be kept apart, or the
            share held out leaves none to train on.
    """
    notes = []
    specs = {field.removesuffix("_split"): getattr(config, field) for field in SPLIT_FIELDS}
    chosen = {part: _parse(part, spec, available, name) for part, spec in specs.items() if spec}
    if "train" not in chosen:
        if "train" not in available:
            raise UserError(
                f"{name} has no train split; it has {', '.join(available)}. Name one with data.train_split."
            )
        chosen["train"] = _whole("train", available)
    taken = {part.split for part in _of(chosen, "train", "validation", "test")}
    free = [split for split in ("test", "validation") if split in available and split not in taken]
    if "test" not in chosen and free:
        chosen["test"] = _whole(free[0], available)
    if "validation" not in chosen:
        if free == ["test", "validation"]:
            chosen["validation"] = _whole("validation", available)
        else:
            total = sum(map(len, chosen["train"]))
            notes = check_shares(total, {"validation": config.validation_share}, name)
            chosen["train"], chosen["validation"] = _cut(chosen["train"], round(total * config.validation_share))
    _check_apart(chosen, name)
    parts = [part for part in ("train", "validation", "test", "pretrain") if chosen.get(part)]
    return {part: chosen[part] for part in parts}, tuple(notes)


def _parse(part, spec, available, name):
    field, splits = f"data.{part}_split={spec!r}", ", ".join(available)
    try:
        instructions = tfds.core.ReadInstruction.from_spec(spec).to_absolute(available)
    except Exception as error:  # what it raises for a wrong text is not settled
        if "Unknown split" in str(error):
            wrong = f"names a split that {name} does not have"
        elif "incompatible with" in str(error):
            wrong = "goes beyond the end of a split"
            splits = ", ".join(f"{split} ({info.num_examples:,} images)" for split, info in available.items())
        else:
            wrong = "is not in the syntax of TensorFlow Datasets, such as train[:90%]+test"
        raise UserError(f"{field} {wrong}; {name} has {splits}.") from error
    ranges = [
        Range(i.splitname, i.from_ or 0, available[i.splitname].num_examples if i.to is None else i.to)
        for i in instructions
    ]
    for images in ranges:
        if images.stop < images.start:
            raise UserError(f"{field} ends before it begins: {images}.")
    for one, other in itertools.combinations(ranges, 2):
        if one.overlaps(other):
            raise UserError(f"{field} names images twice: {one} and {other}.")
    if not sum(map(len, ranges)):
        raise UserError(f"{field} holds no image.")
    return ranges


def _whole(split, available):
    return [Range(split, 0, available[split].num_examples)]


def _cut(ranges, count):
    """Cuts `count` images off the end; returns what remains, and what was cut off."""
    rest, end = list(ranges), []
    while count:
        last = rest.pop()
        middle = max(last.start, last.stop - count)
        count -= last.stop - middle
        end.insert(0, dataclasses.replace(last, start=middle))
        if middle > last.start:
            rest.append(dataclasses.replace(last, stop=middle))
    return rest, end


def _of(chosen, *parts):
    return [images for part in parts for images in chosen.get(part, ())]


def _check_apart(chosen, name):
    for part in ("train", "pretrain"):
        if pair := _overlap(_of(chosen, part), _of(chosen, "validation", "test")):
            seen, evaluated = pair
            raise UserError(
                f"{name}: {seen} is trained on and overlaps {evaluated}, which is evaluated on; name other "
                f"images with data.{part}_split, such as {seen.split}[:90%], or the field of the others."
            )
    if pair := _overlap(_of(chosen, "validation"), _of(chosen, "test")):
        raise UserError(
            f"{name}: {pair[0]} is for validation and overlaps {pair[1]}, which is for the test; name other images "
            "with data.validation_split or data.test_split."
        )


def _overlap(some, others):
    """Returns the first pair of ranges that share an image, or None."""
    return next((pair for pair in itertools.product(some, others) if pair[0].overlaps(pair[1])), None)
