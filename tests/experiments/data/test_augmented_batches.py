"""With every augmentation on, batches are still functions of (seed, epoch, position)."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from experiments.data.augmentation.mixing import Mixing
from experiments.data.pipeline import batch_seed, training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit
from tests.experiments.images import broken_inside, encode, gradient, write

COUNT, BATCH, CLASSES = 14, 4, 3
PER_EPOCH = COUNT // BATCH
STEPS = 2 * PER_EPOCH
PREPROCESSING = Preprocessing(
    24,
    3,
    (0.4, 0.5, 0.6),
    (0.2, 0.2, 0.3),
    crop_scale=(0.3, 1.0),
    flip=True,
    randaugment_magnitude=9.0,
    randaugment_noise=0.5,
    erasing_probability=0.5,
)
JITTER = dataclasses.replace(PREPROCESSING, randaugment_magnitude=0.0, color_jitter=(0.4, 0.4, 0.4, 0.1), crop="padded")
MIXING = Mixing(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0, mix_probability=0.8, label_smoothing=0.1)
PICTURES = np.array(
    [encode(np.roll(gradient(40, 40), i, axis=1), "jpeg" if i % 2 else "png") for i in range(COUNT)], dtype=object
)
LABELS = np.arange(COUNT) % CLASSES


def file_split(folder, contents):
    paths = [str(write(folder / f"{i}.image", content)).encode() for i, content in enumerate(contents)]
    return MemorySplit(np.array(paths, dtype=object), LABELS, are_paths=True)


def take(split, preprocessing, count=STEPS, start_step=0, mixing=MIXING):
    """`count` batches, `{name: (count, B, ...)}`."""
    batches = training_batches(split, preprocessing, BATCH, 0, start_step, 0, mixing).take(count)
    rows = list(batches.as_numpy_iterator())
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def assert_same(actual, expected):
    assert actual.keys() == expected.keys() == {"images", "labels", "weights", "targets"}
    for name in actual:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


@pytest.fixture(scope="module", params=["memory", "files", "decoded", "decoded and jittered"])
def example(request, tmp_path_factory):
    """`(split, preparation)`."""
    if request.param == "memory":
        return MemorySplit(PICTURES, LABELS), JITTER
    if "decoded" in request.param:
        return MemorySplit(PICTURES, LABELS, cache="auto"), JITTER if "jittered" in request.param else PREPROCESSING
    return file_split(tmp_path_factory.mktemp("pictures"), PICTURES), PREPROCESSING


@pytest.fixture(scope="module")
def everything(example):
    return take(*example)


def test_a_start_in_the_middle_gives_the_tail(example, everything):
    start_step = PER_EPOCH + 1
    tail = take(*example, STEPS - start_step, start_step)
    assert_same(tail, {name: values[start_step:] for name, values in everything.items()})


@pytest.mark.parametrize("calls", [1, 4])
def test_the_number_of_parallel_calls_and_the_state_of_the_process_change_nothing(
    monkeypatch, example, everything, calls
):
    tf.random.set_seed(9)
    monkeypatch.setattr(tf.data, "AUTOTUNE", calls)
    assert_same(take(*example), everything)


def test_batches_are_mixed_after_their_images_are_prepared(example, everything):
    """Each by the seed of its place in its epoch."""
    alone = take(*example, mixing=None)
    mixed = 0
    for step in range(STEPS):
        batch = {name: tf.constant(values[step]) for name, values in alone.items()}
        expected = MIXING(batch, batch_seed(0, *divmod(step, PER_EPOCH)))
        for name in ("images", "targets"):
            np.testing.assert_allclose(everything[name][step], expected[name], atol=1e-5)
        mixed += np.abs(everything["images"][step] - alone["images"][step]).max() > 0.01
    assert mixed >= STEPS // 2


def test_each_epoch_mixes_anew(everything):
    shares = everything["targets"].max(axis=-1).reshape(2, -1)
    assert (shares[0] != shares[1]).any()


@pytest.mark.parametrize("cache", ["none", "auto"])
def test_unreadable_files_count_once_and_their_partners_stay(tmp_path, cache):
    contents = PICTURES.copy()
    contents[5] = broken_inside(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8))
    split = file_split(tmp_path, contents).cached(cache)
    mixing = dataclasses.replace(MIXING, mix_probability=1.0, cutmix_alpha=0.0)
    alone, mixed = take(split, PREPROCESSING, 3, mixing=None), take(split, PREPROCESSING, 3, mixing=mixing)
    (step, place), *others = np.argwhere(alone["weights"] == 0.0)
    assert not others
    np.testing.assert_array_equal(mixed["weights"], alone["weights"])
    partner = BATCH - 1 - place
    np.testing.assert_allclose(mixed["images"][step, partner], alone["images"][step, partner], atol=1e-5)
    label = alone["labels"][step, partner]
    expected = np.full(CLASSES, 0.1 / CLASSES) + 0.9 * np.eye(CLASSES)[label]
    np.testing.assert_allclose(mixed["targets"][step, partner], expected, atol=1e-6)
