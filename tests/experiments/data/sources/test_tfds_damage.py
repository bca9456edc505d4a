"""A data set of which a file is damaged: the run ends with its name."""

import types

import numpy as np
import pytest
import tensorflow as tf

from experiments.config import DataConfig
from experiments.data.source import StreamSplit
from experiments.data.sources import tfds
from experiments.data.sources.tfds_damage import naming_damage
from experiments.errors import RunError
from tests.experiments.images import encode, gradient


@pytest.fixture
def files(tmp_path):
    """Two files of ten records."""
    paths = [tmp_path / f"images.tfrecord-{i}" for i in range(2)]
    for path in paths:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(10):
                writer.write(encode(gradient(8, 8)))
    return paths


def cut(content):
    return content[: len(content) // 2 + 1]


def cut_between_records(content):
    return content[: len(content) // 2]  # of ten that are all the same


def flipped(content):
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("damage", [cut, cut_between_records, flipped])
def test_a_damaged_file_is_named(files, monkeypatch, damage):
    files[1].write_bytes(damage(files[1].read_bytes()))
    splits = {"train": types.SimpleNamespace(filepaths=files, shard_lengths=[10, 10])}
    builder = types.SimpleNamespace(info=types.SimpleNamespace(splits=splits))
    monkeypatch.setattr(tfds, "find_builder", lambda name, directory: builder)
    images = tf.data.TFRecordDataset([str(path) for path in files])
    images = images.apply(tf.data.experimental.assert_cardinality(20))  # as TensorFlow Datasets does
    examples = images.map(lambda image: (image, tf.constant(0, tf.int64)))
    config = DataConfig(source="tfds:mine")
    with pytest.raises(RunError) as caught, naming_damage(config):
        np.array(StreamSplit(examples, 20, shuffle_buffer=4).labels)
    assert str(caught.value).startswith(f"{files[1]} of tfds:mine is damaged (")
    assert str(caught.value).endswith(
        "prepare the data set again; then the same command continues from the last checkpoint."
    )


def test_other_errors_stay_what_they_are():
    for error in (KeyError(), tf.errors.FailedPreconditionError(None, None, "not initialized")):
        with pytest.raises(type(error)), naming_damage(DataConfig()):
            raise error
