"""TensorFlow Datasets: opens any data set by name, and assigns its images to splits.

Each of `data.train_split`, `validation_split`, `test_split` and `pretrain_split` takes TensorFlow Datasets' syntax:
`train`, `train[:90%]`, `train[1000:]+extra`. Where a field is empty,

- `train` is the split of that name;
- `test` is the split `test` or, if there is none, as for ImageNet, the split `validation`;
- `validation` is the split of that name if there is also a test split, else the last `validation_share` of the training
  images;
- pretraining learns from the training images.

The rules for `test` and `validation` ignore splits of which a field for fine-tuning or evaluation takes a part. It is
an error if an image is used for both training and evaluation, or for both validation and test: choices and final
figures must not use the same images.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import tensorflow as tf
import tensorflow_datasets as tfds

from experiments.config import SPLIT_FIELDS, DataConfig
from experiments.data.segmentation_masks import ClassTable, Masks
from experiments.data.source import Source, StreamSplit
from experiments.data.splits import check_shares
from experiments.errors import UserError


def open_tfds(name: str, config: DataConfig, masks: bool = False) -> Source:
    """Opens a prepared data set.

    An image that cannot be decoded counts as unreadable when it is read. An image without a label, or with one outside
    of the classes, has the label -1; tasks with labels leave it out.

    Args:
        name: of the data set, such as `fashion_mnist` or `imagenet2012:5.1.0`.
        config: a `DataConfig`; its fields on splits follow the rule of `choose_ranges`.
        masks: whether the images come with their masks, of the feature `data.mask_feature`.

    Returns:
        A `Source`.

    Raises:
        UserError: if there is no such data set, it is not prepared, or it lacks the requested splits.
    """
    builder = find_builder(name, config.dir)
    if not builder.info.splits:
        raise UserError(
            f"tfds:{name} is not prepared in {builder.data_dir}: name the folder that holds it with data.dir, "
            f"or prepare it with `python -m launch.prepare --source=tfds:{name}`."
        )
    features = builder.info.features
    if "image" not in features:
        raise UserError(f"tfds:{name} has no feature called image; it has {', '.join(features)}.")
    ranges, notes = choose_ranges(builder.info.splits, config, f"tfds:{name}")
    found: Masks | None
    decoded_later: tuple[str, ...]
    if masks:
        table = _class_table(features, config, f"tfds:{name}")
        example_of, decoded_later = _example_with_mask(config.mask_feature), ("image", config.mask_feature)
        class_names, found = table.names, Masks(table, max_pixels=config.max_pixels)
    else:
        labelled = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
        class_names, found = tuple(features["label"].names) if labelled else (), None
        example_of, decoded_later = _example_with_label(len(class_names)), ("image",)
    splits = {part: _stream(builder, ranges[part], example_of, decoded_later, config.shuffle_buffer) for part in ranges}
    return Source(f"tfds:{name}", splits, class_names, notes, masks=found)


def find_builder(name: str, directory: str) -> tfds.core.DatasetBuilder:
    """Returns the builder with which TensorFlow Datasets reads and prepares a data set.

    Args:
        name: of the data set.
        directory: where its data lie; empty for TensorFlow Datasets' own default.

    Raises:
        UserError: if there is no such data set.
    """
    try:
        return tfds.builder(name, data_dir=directory or None)
    except tfds.core.DatasetNotFoundError as error:
        where = f" in {directory}" if directory else ""
        raise UserError(f"TensorFlow Datasets knows no data set called {name!r}{where}.") from error
    except (ValueError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or ["it cannot be opened"])[0]
        raise UserError(f"tfds:{name}: {reason}") from error


def _class_table(features: tfds.features.FeaturesDict, config: DataConfig, name: str) -> ClassTable:
    """Returns the `ClassTable` of the masks of a data set; raises UserError where there are none, or no names."""
    feature = dict(features.items()).get(config.mask_feature)
    if not isinstance(feature, tfds.features.Image):
        raise UserError(
            f"{name} has no image feature {config.mask_feature!r} (data.mask_feature); it has {', '.join(features)}."
        )
    if config.class_names:
        return ClassTable.read(config.class_names, config.ignore_label)
    if names := getattr(feature, "names", None):
        pairs = [(number, name) for number, name in enumerate(names) if number not in config.ignore_label]
        numbers, names = zip(*pairs)
        return ClassTable(names, numbers, config.ignore_label)
    raise UserError(f"{name} does not name the classes of its masks: name a text file with data.class_names.")


def _example_with_label(num_classes: int) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    def example_of(features: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        label = features["label"] if num_classes else tf.constant(-1, tf.int64)
        return features["image"], tf.where((label >= 0) & (label < num_classes), label, tf.constant(-1, tf.int64))

    return example_of


def _example_with_mask(feature: str) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Returns the function that makes examples for `Masks`: the bytes of the image, then those of the mask."""

    def example_of(features: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image = features["image"]
        return image + features[feature], tf.cast(tf.strings.length(image), tf.int64)

    return example_of


def _stream(
    builder: tfds.core.DatasetBuilder,
    ranges: Sequence["Range"],
    example_of: Callable[..., tuple[tf.Tensor, tf.Tensor]],
    decoded_later: Iterable[str],
    shuffle_buffer: int,
) -> StreamSplit:
    # Without cycles over shards and with deterministic options the order never changes.
    examples = builder.as_dataset(
        split="+".join(map(str, ranges)),
        shuffle_files=False,
        decoders={feature: tfds.decode.SkipDecoding() for feature in decoded_later},
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )

    examples = examples.map(example_of, num_parallel_calls=tf.data.AUTOTUNE)
    available = builder.info.splits
    num_bytes = sum(available[r.split].num_bytes * len(r) // available[r.split].num_examples for r in ranges)
    return StreamSplit(
        examples,
        sum(map(len, ranges)),
        shuffle_buffer,
        int(num_bytes),
        name_of=lambda i: _name(builder.name, ranges, i),
    )


def _name(dataset: str, ranges: Iterable["Range"], i: int) -> str:
    """Returns the `i`-th image of some ranges in the syntax of TensorFlow Datasets: `mnist, train[17]`."""
    for images in ranges:
        if i < len(images):
            return f"{dataset}, {images.split}[{images.start + i}]"
        i -= len(images)
    raise IndexError(f"{dataset} has fewer images there.")


@dataclasses.dataclass(frozen=True)
class Range:
    """Consecutive images of a split, from `start` up to but not including `stop`."""

    split: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.split}[{self.start}:{self.stop}]"

    def __len__(self) -> int:
        return self.stop - self.start

    def overlaps(self, other: "Range") -> bool:
        """Whether an image is in both."""
        return self.split == other.split and max(self.start, other.start) < min(self.stop, other.stop)


def choose_ranges(
    available: Mapping[str, tfds.core.SplitInfo], config: DataConfig, name: str
) -> tuple[dict[str, list[Range]], tuple[str, ...]]:
    """Assigns the images to splits.

    Args:
        available: TensorFlow Datasets' information on the splits, by their names.
        config: a `DataConfig`.
        name: of the data set, for messages.

    Returns:
        `({"train": [Range, ...], "validation": ..., ...}, notes)`, with lines for the user.

    Raises:
        UserError: if a field names images that do not exist, images are used for two purposes that must be kept apart,
            or the held-out share leaves no image to train on.
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


def _parse(part: str, spec: str, available: Mapping[str, tfds.core.SplitInfo], name: str) -> list[Range]:
    field, splits = f"data.{part}_split={spec!r}", ", ".join(available)
    try:
        instructions = tfds.core.ReadInstruction.from_spec(spec).to_absolute(available)
    except Exception as error:  # the type of error for a wrong text is not documented
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


def _whole(split: str, available: Mapping[str, tfds.core.SplitInfo]) -> list[Range]:
    return [Range(split, 0, available[split].num_examples)]


def _cut(ranges: Iterable[Range], count: int) -> tuple[list[Range], list[Range]]:
    """Cuts `count` images off the end; returns what remains, and what was cut off."""
    end: list[Range]
    rest, end = list(ranges), []
    while count:
        last = rest.pop()
        middle = max(last.start, last.stop - count)
        count -= last.stop - middle
        end.insert(0, dataclasses.replace(last, start=middle))
        if middle > last.start:
            rest.append(dataclasses.replace(last, stop=middle))
    return rest, end


def _of(chosen: Mapping[str, list[Range]], *parts: str) -> list[Range]:
    return [images for part in parts for images in chosen.get(part, ())]


def _check_apart(chosen: Mapping[str, list[Range]], name: str) -> None:
    for part in ("train", "pretrain"):
        if pair := _overlap(_of(chosen, part), _of(chosen, "validation", "test")):
            seen, evaluated = pair
            raise UserError(
                f"{name}: {seen} is for training but overlaps {evaluated}, which is for evaluation; name other "
                f"images with data.{part}_split, such as {seen.split}[:90%], or change the field of the other split."
            )
    if pair := _overlap(_of(chosen, "validation"), _of(chosen, "test")):
        raise UserError(
            f"{name}: {pair[0]} is for validation and overlaps {pair[1]}, which is for the test; name other images "
            "with data.validation_split or data.test_split."
        )


def _overlap(some: Iterable[Range], others: Iterable[Range]) -> tuple[Range, Range] | None:
    """Returns the first pair of ranges that share an image, or None."""
    return next((pair for pair in itertools.product(some, others) if pair[0].overlaps(pair[1])), None)
