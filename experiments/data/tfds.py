"""Any data set of TensorFlow Datasets, by name."""

import tensorflow as tf
import tensorflow_datasets as tfds

from experiments.data.source import Source, StreamSplit
from experiments.data.tfds_splits import choose_ranges
from experiments.errors import UserError


def open_tfds(name, config):
    """Opens a prepared data set.

    An image that cannot be decoded counts as unreadable when it is met. One without a label, or with one outside of the
    classes, has the label -1; tasks with labels leave it out.

    Args:
        name: of the data set, such as `fashion_mnist` or `imagenet2012:5.1.0`.
        config: a `DataConfig`; its fields on splits follow the rule of `tfds_splits`.

    Returns:
        A `Source`.

    Raises:
        UserError: if there is no such data set, it is not prepared, or it has not the splits that are asked for.
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
    labelled = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
    class_names = tuple(features["label"].names) if labelled else ()
    ranges, notes = choose_ranges(builder.info.splits, config, f"tfds:{name}")
    splits = {part: _stream(builder, ranges[part], len(class_names), config.shuffle_buffer) for part in ranges}
    return Source(f"tfds:{name}", splits, class_names, notes)


def find_builder(name, directory):
    """Returns what TensorFlow Datasets reads and prepares a data set by.

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


def _stream(builder, ranges, num_classes, shuffle_buffer):
    # Without cycles over shards and with deterministic options the order never changes.
    examples = builder.as_dataset(
        split="+".join(map(str, ranges)),
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )

    def example_of(features):
        label = features["label"] if num_classes else tf.constant(-1, tf.int64)
        return features["image"], tf.where((label >= 0) & (label < num_classes), label, tf.constant(-1, tf.int64))

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


def _name(dataset, ranges, i):
    """Returns what the `i`-th image of some ranges is in the syntax of TensorFlow Datasets: `mnist, train[17]`."""
    for images in ranges:
        if i < len(images):
            return f"{dataset}, {images.split}[{images.start + i}]"
        i -= len(images)
    raise IndexError(f"{dataset} has fewer images there.")
