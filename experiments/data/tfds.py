"""Any data set of TensorFlow Datasets, by name."""

import tensorflow as tf
import tensorflow_datasets as tfds

from experiments.data.source import Source, StreamSplit
from experiments.errors import UserError


def open_tfds(name, config):
    """Opens a prepared data set.

    Args:
        name: of the data set, such as `fashion_mnist` or `imagenet2012:5.1.0`.
        config: a `DataConfig`; `validation_share` is taken from the end of the training split where the data set
            has no test split besides its validation split.

    Returns:
        A `Source`. The last resort for `test` is the data set's `validation` split, as with ImageNet.

    Raises:
        UserError: if there is no such data set, or it is not prepared.
    """
    builder = _builder(name, config.dir)
    features = builder.info.features
    if "image" not in features:
        raise UserError(f"tfds:{name} has no feature called image; it has {', '.join(features)}.")
    labelled = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
    splits = {
        part: _stream(builder, spec, labelled, config.shuffle_buffer)
        for part, spec in _split_specs(builder, config.validation_share).items()
    }
    class_names = tuple(features["label"].names) if labelled else ()
    return Source(f"tfds:{name}", splits, class_names)


def _builder(name, directory):
    try:
        builder = tfds.builder(name, data_dir=directory or None)
    except tfds.core.DatasetNotFoundError as error:
        where = f" in {directory}" if directory else ""
        raise UserError(f"TensorFlow Datasets knows no data set called {name!r}{where}.") from error
    except (ValueError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or ["it cannot be opened"])[0]
        raise UserError(f"tfds:{name}: {reason}") from error
    if not builder.info.splits:
        raise UserError(
            f"tfds:{name} is not prepared in {builder.data_dir}: name the folder that holds it with data.dir, "
            f"or prepare it with `tfds build {name}`."
        )
    return builder


def _split_specs(builder, validation_share):
    available = builder.info.splits
    if "train" not in available:
        raise UserError(f"tfds:{builder.name} has no train split; it has {', '.join(available)}.")
    test = next((name for name in ("test", "validation") if name in available), None)
    if test == "test" and "validation" in available:
        return {"train": "train", "validation": "validation", "test": "test"}
    held_out = round(available["train"].num_examples * validation_share)
    specs = {"train": f"train[:-{held_out}]" if held_out else "train"}
    if held_out:
        specs["validation"] = f"train[-{held_out}:]"
    if test:
        specs["test"] = test
    return specs


def _stream(builder, spec, labelled, shuffle_buffer):
    # Without cycles over shards and with deterministic options the order never changes.
    examples = builder.as_dataset(
        split=spec,
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
    )
    examples = examples.map(
        lambda example: (example["image"], example["label"] if labelled else tf.constant(-1, tf.int64)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return StreamSplit(examples, builder.info.splits[spec].num_examples, shuffle_buffer)
