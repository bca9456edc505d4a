"""Several shards share each batch; together they give the batches of one."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from experiments.data.augmentation.mixing import Mixing
from experiments.data.pipeline import shard_of_batch, training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit, StreamSplit
from experiments.data.sources.mix import MixedSplit
from experiments.errors import UserError
from tests.experiments.images import encode, gradient, write

COUNT, BATCH, CLASSES = 26, 8, 3
PER_EPOCH = COUNT // BATCH
PREPROCESSING = Preprocessing(
    *(16, 3, (0.4, 0.5, 0.6), (0.2, 0.2, 0.3)),
    crop_scale=(0.3, 1.0),
    flip=True,
    erasing_probability=0.5,
)
JITTER = dataclasses.replace(PREPROCESSING, color_jitter=(0.4, 0.4, 0.4, 0.1))
MIXING = Mixing(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0, mix_probability=0.8, label_smoothing=0.1)
PICTURES = np.array(
    [encode(np.roll(gradient(30, 24), i, axis=1), "jpeg" if i % 2 else "png") for i in range(COUNT)], dtype=object
)
LABELS = np.arange(COUNT) % CLASSES


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    paths = [str(write(folder / f"{i}.image", content)).encode() for i, content in enumerate(PICTURES)]
    memory = MemorySplit(PICTURES, LABELS)
    stream = StreamSplit(tf.data.Dataset.from_tensor_slices((list(PICTURES), LABELS)), COUNT, 10)
    files = MemorySplit(np.array(paths, dtype=object), LABELS, are_paths=True)
    mixed = MixedSplit((stream, files), (10, 20))
    decoded = {"decoded": memory.cached("auto"), "decoded mix": mixed.cached("auto")}
    return {"memory": memory, "stream": stream, "files": files, "mix": mixed, **decoded}


def take(split, count, **arguments):
    """`count` batches, `{name: (count, B, ...)}`."""
    mixing = None if isinstance(split, MixedSplit) else MIXING
    preprocessing = (
        JITTER if isinstance(split, MemorySplit) and split.are_paths else PREPROCESSING
    )  # each operation once is enough
    batches = training_batches(split, preprocessing, BATCH, 5, num_patches=4, mixing=mixing, **arguments).take(count)
    rows = list(batches.as_numpy_iterator())
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("batch_size", [1, 6, 7, 8, 15, 24])
def test_the_shares_of_all_readers_are_the_batch(batch_size):
    for num_shards in (n for n in range(1, batch_size + 1) if batch_size % n == 0):
        shares = [shard_of_batch(batch_size, shard, num_shards) for shard in range(num_shards)]
        assert all(len(share) == batch_size // num_shards and (np.diff(share) > 0).all() for share in shares)
        assert sorted(np.concatenate(shares)) == list(range(batch_size))
        if batch_size // num_shards % 2 == 0:
            assert all((share[::-1] == batch_size - 1 - share).all() for share in shares)
    np.testing.assert_array_equal(shard_of_batch(batch_size, 0, 1), np.arange(batch_size))


def test_the_example_of_the_docstring():
    np.testing.assert_array_equal(shard_of_batch(8, 0, 2), [0, 1, 6, 7])
    np.testing.assert_array_equal(shard_of_batch(8, 1, 2), [2, 3, 4, 5])


@pytest.mark.parametrize(
    ("kind", "num_shards", "start_step"),
    [("memory", 2, PER_EPOCH - 1), ("stream", 2, 1), ("files", 2, PER_EPOCH), ("mix", 2, 2)]
    + [("decoded", 4, PER_EPOCH - 1), ("decoded mix", 2, 2)],
)
def test_together_they_give_the_batches_of_one_shard_bit_for_bit(splits, kind, num_shards, start_step):
    """From the beginning and from the middle, across the end of an epoch, with augmentation and mixing."""
    split, count = splits[kind], PER_EPOCH + 1
    tf.random.set_seed(num_shards)  # of the process: it must not matter
    expected = {name: values[start_step:] for name, values in take(split, start_step + count).items()}
    joined = {name: np.full_like(values, -9) for name, values in expected.items()}
    for shard in range(num_shards):
        share = take(split, count, start_step=start_step, shard=shard, num_shards=num_shards)
        for name, values in share.items():
            joined[name][:, shard_of_batch(BATCH, shard, num_shards)] = values
    for name, values in expected.items():
        np.testing.assert_array_equal(joined[name], values, err_msg=name)
    if "mix" not in kind:
        assert len(np.unique(expected["targets"].max(axis=-1))) > 1  # some batch is mixed


def test_a_shard_opens_only_the_files_of_its_share(tmp_path):
    paths = [str(write(tmp_path / f"{i}.image", content)).encode() for i, content in enumerate(PICTURES)]
    split = MemorySplit(np.array(paths, dtype=object), np.arange(COUNT), are_paths=True)
    plain = Preprocessing(16, 3, (0.0,) * 3, (1.0,) * 3)
    batches = training_batches(split, plain, BATCH, 0, shard=1, num_shards=2).take(PER_EPOCH)
    wanted = {int(label) for batch in batches.as_numpy_iterator() for label in batch["labels"]}
    assert len(wanted) == PER_EPOCH * BATCH // 2
    for i in set(range(COUNT)) - wanted:
        os.remove(paths[i])
    assert all((batch["weights"] == 1.0).all() for batch in batches.as_numpy_iterator())


def test_a_batch_that_does_not_divide_into_the_shards_is_refused(splits):
    with pytest.raises(UserError, match="A batch of 8 images cannot be divided equally into 3 shards"):
        take(splits["memory"], 1, num_shards=3)
    with pytest.raises(UserError, match="does not divide into pairs in 8 shards: use a multiple of 16"):
        take(splits["memory"], 1, num_shards=8)
    with pytest.raises(ValueError, match="Shard 2 is not one of 2 shards"):
        shard_of_batch(8, 2, 2)
