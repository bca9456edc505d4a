"""Batches are functions of (seed, epoch, position)."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from experiments.data.augmentation import views
from experiments.data.pipeline import evaluation_batches, training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit, StreamSplit
from tests.experiments.images import broken_inside, encode, gradient, numbered, write

COUNT, BATCH, PATCHES = 22, 5, 6
PER_EPOCH = COUNT // BATCH
PREPROCESSING = Preprocessing(8, 1, (0.0,), (1.0,), crop_scale=(0.3, 1.0), flip=True)
PICTURES = np.array([encode(np.roll(gradient(12, 12, 1), i)) for i in range(COUNT)], dtype=object)


def memory_split(contents=PICTURES):
    return MemorySplit(contents, np.arange(len(contents)))


def stream_split(contents=PICTURES, shuffle_buffer=10):
    examples = tf.data.Dataset.from_tensor_slices((list(contents), np.arange(len(contents))))
    return StreamSplit(examples, len(contents), shuffle_buffer)


def file_split(folder, contents):
    paths = [write(folder / f"{i}.png", content) for i, content in enumerate(contents)]
    return MemorySplit(np.array([str(path).encode() for path in paths], dtype=object), np.arange(len(paths)), True)


@pytest.fixture(scope="module", params=["memory", "stream", "files", "memory decoded", "stream decoded"])
def split(request, tmp_path_factory):
    kind, _, decoded = request.param.partition(" ")
    if kind == "files":
        return file_split(tmp_path_factory.mktemp("pictures"), PICTURES)
    split = {"memory": memory_split, "stream": stream_split}[kind]()
    return split.cached("auto") if decoded else split


@pytest.fixture(params=["none", "auto"])
def cache(request):
    """Whether images are read one by one or held in memory, decoded."""
    return request.param


@pytest.fixture(scope="module")
def everything(split):
    """Three epochs, drawn after the process drew other numbers."""
    tf.random.set_seed(1)
    return take(3 * PER_EPOCH, split)


def take(count, split, seed=0, start_step=0, num_patches=PATCHES):
    """`count` batches, `{name: (count, B, ...)}`."""
    batches = training_batches(split, PREPROCESSING, BATCH, seed, start_step, num_patches).take(count)
    return stack(batches)


def stack(batches):
    return {name: np.stack(values) for name, values in _columns(batches).items()}


def _columns(batches):
    rows = list(batches.as_numpy_iterator())
    return {name: [row[name] for row in rows] for name in rows[0]}


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name in actual:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


def test_two_iterations_give_the_same_batches_whatever_the_random_state_of_the_process(split, everything):
    tf.random.set_seed(2)
    np.random.seed(2)
    batches = training_batches(split, PREPROCESSING, BATCH, 0, 0, PATCHES).take(3 * PER_EPOCH)
    for _ in range(2):
        assert_same(stack(batches), everything)


@pytest.mark.parametrize("start_step", [PER_EPOCH, 2 * PER_EPOCH + 1])
def test_a_start_in_the_middle_gives_the_tail(split, everything, start_step):
    tail = take(3 * PER_EPOCH - start_step, split, start_step=start_step)
    assert_same(tail, {name: values[start_step:] for name, values in everything.items()})


def test_an_epoch_shows_each_example_at_most_once_and_in_an_order_of_its_own(everything):
    labels = everything["labels"].reshape(3, PER_EPOCH * BATCH)
    for epoch in labels:
        assert len(set(epoch)) == PER_EPOCH * BATCH
        assert set(epoch) <= set(range(COUNT))
    for one, other in itertools.combinations([*labels, np.arange(PER_EPOCH * BATCH)], 2):
        assert (one != other).mean() > 0.5
    # Which examples are left out changes too.
    assert len({frozenset(epoch) for epoch in labels}) > 1


def test_label_and_image_belong_together(split):
    whole = Preprocessing(12, 1, (0.0,), (1.0,))
    batch = next(training_batches(split, whole, BATCH, 0).as_numpy_iterator())
    for image, label in zip(batch["images"], batch["labels"]):
        expected = np.roll(gradient(12, 12, 1), label) / 255
        np.testing.assert_allclose(image, expected.reshape(12, 12, 1), atol=1e-2)


def test_another_seed_gives_another_order_and_other_masks(split, everything):
    one, other = {name: values[:PER_EPOCH] for name, values in everything.items()}, take(PER_EPOCH, split, seed=1)
    assert (one["labels"] != other["labels"]).mean() > 0.5
    assert not np.isin(one["noise"], other["noise"]).any()


def test_mask_noise_differs_between_examples_and_epochs_and_is_uniform():
    noise = take(40 * PER_EPOCH, memory_split())["noise"]
    assert noise.shape == (40 * PER_EPOCH, BATCH, PATCHES)
    assert len(np.unique(noise)) > 0.999 * noise.size
    assert 0 <= noise.min() < 0.01 and 0.99 < noise.max() < 1
    assert abs(noise.mean() - 0.5) < 0.02 and abs(noise.var() - 1 / 12) < 0.005


def test_an_example_has_another_window_in_each_epoch():
    batches = take(6 * PER_EPOCH, memory_split())
    images, labels = batches["images"].reshape(-1, 64), batches["labels"].reshape(-1)
    shown = images[labels == labels[0]]
    assert len(shown) >= 5 and len(np.unique(shown, axis=0)) == len(shown)


def test_noise_is_drawn_only_for_patches():
    assert set(take(1, memory_split(), num_patches=0)) == {"images", "labels", "weights"}


def test_all_examples_of_readable_files_weigh_one(everything):
    assert (everything["weights"] == 1.0).all()


@pytest.fixture(scope="module")
def one_by_one(split):
    """The images of evaluation, in batches of one."""
    return stack(evaluation_batches(split, PREPROCESSING, 1))["images"][:, 0]


@pytest.mark.parametrize("batch_size", [4, 11])
def test_evaluation_shows_each_example_once_and_fills_the_last_batch_with_weight_0(split, one_by_one, batch_size):
    batches = stack(evaluation_batches(split, PREPROCESSING, batch_size))
    assert batches["images"].shape == (-(-COUNT // batch_size), batch_size, 8, 8, 1)
    weights, labels = batches["weights"].reshape(-1), batches["labels"].reshape(-1)
    np.testing.assert_array_equal(weights, [1.0] * COUNT + [0.0] * (-COUNT % batch_size))
    np.testing.assert_array_equal(labels[:COUNT], np.arange(COUNT))
    assert not batches["images"].reshape(-1, 64)[COUNT:].any()
    np.testing.assert_array_equal(batches["images"].reshape(-1, 8, 8, 1)[:COUNT], one_by_one)


def test_the_mask_noise_of_evaluation_is_a_function_of_the_seed_and_the_position(tmp_path, cache):
    def noise_of(split, batch_size, seed=5):
        arguments = {"num_patches": PATCHES, "seed": seed}
        batches = stack(evaluation_batches(split.cached(cache), PREPROCESSING, batch_size, **arguments))
        return batches["noise"].reshape(-1, PATCHES)

    expected = noise_of(memory_split(), COUNT)
    assert expected.shape == (COUNT, PATCHES) and len(np.unique(expected)) == expected.size
    assert 0 <= expected.min() < 0.1 and 0.9 < expected.max() < 1
    contents = PICTURES.copy()
    contents[2] = contents[2][:60]
    readable = np.arange(COUNT) != 2
    for batch_size in (1, 3):
        np.testing.assert_array_equal(noise_of(memory_split(), batch_size)[:COUNT], expected)
    np.testing.assert_array_equal(noise_of(file_split(tmp_path, contents), 7)[:COUNT][readable], expected[readable])
    np.testing.assert_array_equal(noise_of(memory_split().take(np.arange(4)), 7)[:4], expected[:4])
    assert not np.isin(noise_of(memory_split(), 7, seed=6), expected).any()


def test_a_broken_file_becomes_zeros_of_weight_0_and_the_others_keep_their_places(tmp_path, cache):
    """One is damaged in the middle, one is truncated, one is empty."""
    contents = PICTURES.copy()
    noise = np.random.default_rng(0).integers(0, 256, (12, 12), dtype=np.uint8)
    contents[[7, 8, 15]] = broken_inside(noise), encode(noise)[:60], b""
    good, bad = (split.cached(cache) for split in (memory_split(), file_split(tmp_path, contents)))
    good, bad = take(2 * PER_EPOCH, good), take(2 * PER_EPOCH, bad)
    place = np.isin(good["labels"], [7, 8, 15])
    assert set(good["labels"][place]) == {7, 8, 15}
    np.testing.assert_array_equal(bad["weights"], np.where(place, 0.0, 1.0))
    assert not bad["images"][place].any()
    for name in good:
        np.testing.assert_array_equal(bad[name][~place], good[name][~place], err_msg=name)


def test_a_broken_file_counts_nothing_in_evaluation(tmp_path, cache):
    contents = PICTURES[:5].copy()
    contents[3] = broken_inside(gradient(12, 12, 1))
    batches = stack(evaluation_batches(file_split(tmp_path, contents).cached(cache), PREPROCESSING, 5))
    np.testing.assert_array_equal(batches["weights"], [[1, 1, 1, 0, 1]])
    assert not batches["images"][0, 3].any()
    np.testing.assert_array_equal(batches["labels"][0, [0, 1, 2, 4]], [0, 1, 2, 4])


def test_a_broken_image_of_a_stream_counts_nothing_and_changes_nothing_else(monkeypatch):
    contents = PICTURES.copy()
    contents[7] = contents[7][:60]

    def batches_of(split):
        return take(2 * PER_EPOCH, split), stack(evaluation_batches(split, PREPROCESSING, 4))

    bad = batches_of(stream_split(contents))
    monkeypatch.setattr(StreamSplit, "can_fail", False)  # as batches are loaded in which nothing can be broken
    for actual, expected in zip(bad, batches_of(stream_split())):
        broken = (expected["labels"] == 7) & (expected["weights"] > 0)
        assert broken.any() and not actual["images"][broken].any()
        np.testing.assert_array_equal(actual["weights"], np.where(broken, 0.0, expected["weights"]))
        for name in expected:
            np.testing.assert_array_equal(actual[name][~broken], expected[name][~broken], err_msg=name)


def test_an_example_is_traced_once_and_its_window_for_both_ways_of_decoding(monkeypatch):
    """Every start of a command waits for what is traced."""
    traced, read, random_window = [], StreamSplit.read, views.random_window
    monkeypatch.setattr(StreamSplit, "read", lambda *arguments: traced.append("read") or read(*arguments))
    monkeypatch.setattr(views, "random_window", lambda *arguments: traced.append("window") or random_window(*arguments))
    training_batches(stream_split(), PREPROCESSING, BATCH, 0)
    assert sorted(traced) == ["read", "window", "window"]


def test_a_broken_image_of_a_part_of_a_stream_counts_nothing():
    contents = PICTURES.copy()
    contents[7] = contents[7][:60]
    batches = stack(evaluation_batches(stream_split(contents).take(np.array([3, 7, 9])), PREPROCESSING, 3))
    np.testing.assert_array_equal(batches["weights"], [[1, 0, 1]])


def test_a_file_that_vanishes_counts_as_broken(tmp_path):
    split = file_split(tmp_path, PICTURES[:5])
    (tmp_path / "2.png").unlink()
    batches = stack(evaluation_batches(split, PREPROCESSING, 5))
    np.testing.assert_array_equal(batches["weights"], [[1, 1, 0, 1, 1]])


def test_a_stream_is_shuffled_as_a_whole_where_the_buffer_holds_it():
    contents = numbered(80)
    whole = next(training_batches(stream_split(contents, 1000), PREPROCESSING, 80, 0).as_numpy_iterator())
    near = next(training_batches(stream_split(contents, 4), PREPROCESSING, 80, 0).as_numpy_iterator())
    moved = {name: np.abs(batch["labels"] - np.arange(80)).mean() for name, batch in {"w": whole, "n": near}.items()}
    assert sorted(whole["labels"]) == sorted(near["labels"]) == list(range(80))
    assert moved["w"] > 15 > 8 > moved["n"] > 0
