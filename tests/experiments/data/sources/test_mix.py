"""Several sources as one: which images an epoch has, and in what order."""

import re

import numpy as np
import pytest
import tensorflow as tf

from experiments.config import DataConfig
from experiments.data.pipeline import evaluation_batches, training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit, Source, StreamSplit
from experiments.data.sources import open_source
from experiments.data.sources.mix import MixedSplit, divide, mix
from experiments.data.splits import at_most, evenly_spread
from experiments.errors import UserError
from tests.experiments.images import encode, numbered, write

WHOLE = Preprocessing(8, 1, (0.0,), (1.0,))
GREY = numbered(60)  # the i-th is grey of the value 3 * i: 0 to 29 of the stream, 30 to 39 files, 40 and on in memory


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grey")
    paths = [str(write(folder / f"{i}.png", content)).encode() for i, content in enumerate(GREY[30:40])]
    stream = StreamSplit(tf.data.Dataset.from_tensor_slices((list(GREY[:30]), np.zeros(30, int))), 30, 12)
    files = MemorySplit(np.array(paths, dtype=object), np.arange(10), are_paths=True)
    held_out = MemorySplit(GREY[40:44], np.arange(4))
    return (
        Source("stream", {"train": held_out, "pretrain": stream}, ("a", "b")),
        Source("files", {"train": files, "validation": held_out}, ("a", "b"), ("a note",)),
    )


def shown(split, steps, start_step=0, batch_size=4, seed=0, **arguments):
    """The numbers of the images of `steps` batches."""
    batches = training_batches(split, WHOLE, batch_size, seed, start_step, **arguments).take(steps)
    rows = [batch["images"][:, 0, 0, 0] for batch in batches.as_numpy_iterator()]
    return np.round(np.concatenate(rows) * 255 / 3).astype(int)


def test_without_weights_an_epoch_shows_each_image_once(sources):
    source = mix(sources, [None, None])
    assert source.name == "the mix of stream and files" and source.num_classes == 0
    split = source.splits["train"]
    assert split.num_examples == 40 and split.counts == (30, 10)
    epochs = shown(split, 20).reshape(2, 40)
    for epoch in epochs:
        assert sorted(epoch) == list(range(40))
        assert np.flatnonzero(epoch >= 30).min() < 15 and np.flatnonzero(epoch >= 30).max() > 25  # spread
    assert (epochs[0] != epochs[1]).mean() > 0.5


def test_weights_are_shares_of_an_epoch_and_each_source_goes_on_where_it_was(sources):
    split = mix(sources, [1.0, 3.0]).splits["train"]
    assert split.counts == (10, 30)
    epochs = shown(split, 40).reshape(4, 40)
    of_stream = [epoch[epoch < 30] for epoch in epochs]
    of_files = [epoch[epoch >= 30] for epoch in epochs]
    assert [len(part) for part in of_stream] == [10] * 4 and [len(part) for part in of_files] == [30] * 4
    assert sorted(np.concatenate(of_stream[:3])) == list(range(30))  # three epochs of the mix are one of the stream
    rounds = np.concatenate(of_files).reshape(12, 10)  # of the files each epoch has three rounds
    for one in rounds:
        assert sorted(one) == list(range(30, 40))
    assert len({tuple(one) for one in rounds}) == 12


def test_some_examples_of_a_mix_are_those_of_its_sources(sources):
    """As the rank of the features takes them of many validation images."""
    stream, files = (source.get("pretrain") or source.split("train") for source in sources)
    whole = MixedSplit((stream, files), (30, 10))

    def in_order(split):
        (batch,) = evaluation_batches(split, WHOLE, 64).as_numpy_iterator()
        return np.round(batch["images"][batch["weights"] > 0][:, 0, 0, 0] * 255 / 3).astype(int).tolist()

    assert in_order(whole.take(np.array([3, 17, 29, 30, 38]))) == [3, 17, 29, 30, 38]
    assert in_order(whole.take(np.array([31, 39]))) == [31, 39]
    some = at_most(whole, 12, 5)
    assert some.num_examples == 12 and set(in_order(some)) < set(range(40))
    assert in_order(evenly_spread(files, 4)) == [30, 32, 35, 37] and evenly_spread(files, 11).num_examples == 10


def test_a_start_in_the_middle_gives_the_tail_whatever_the_random_state_of_the_process(sources):
    split = mix(sources, [0.7, 0.3]).splits["train"]
    tf.random.set_seed(1)
    everything = shown(split, 30).reshape(30, 4)
    for start_step in (7, 23):
        tf.random.set_seed(start_step)
        np.testing.assert_array_equal(shown(split, 3, start_step).reshape(3, 4), everything[start_step:][:3])


def test_an_unreadable_file_keeps_its_place_and_there_are_no_labels(sources, tmp_path):
    broken = MemorySplit(np.array([str(tmp_path / "nowhere.png").encode()] * 10, dtype=object), np.arange(10), True)
    split = MixedSplit((sources[0].splits["pretrain"], broken), (30, 10))
    (batch,) = training_batches(split, WHOLE, 40, 0).take(1).as_numpy_iterator()
    good = shown(mix(sources, [None, None]).splits["train"], 1, batch_size=40)
    np.testing.assert_array_equal(batch["weights"], (good < 30).astype(float))
    assert set(batch["labels"][good < 30]) == {-1}


def test_the_validation_images_are_those_of_the_sources_one_after_the_other(sources):
    other = Source("memory", {"train": sources[1].splits["validation"], "validation": sources[1].splits["train"]}, ())
    split = mix([sources[1], other], [None, None]).splits["validation"]
    (batch,) = evaluation_batches(split, WHOLE, 14).as_numpy_iterator()
    found = np.round(batch["images"][:, 0, 0, 0] * 255 / 3)
    np.testing.assert_array_equal(found, [40, 41, 42, 43, *range(30, 40)])


@pytest.mark.parametrize(
    ("total", "weights", "counts"),
    [(10, (1, 1, 1), (4, 3, 3)), (100, (0.7, 0.3), (70, 30)), (7, (5, 2), (5, 2)), (5, (0.99, 0.01), (5, 0))],
)
def test_the_largest_remainders_are_rounded_up(total, weights, counts):
    assert divide(total, weights) == counts


def test_a_weight_that_gives_no_image_is_refused(sources):
    with pytest.raises(UserError, match="The weight of files is too small: an epoch of 40 images has none of it."):
        mix(sources, [1.0, 0.001])


def test_a_configuration_names_a_mix(tmp_path):
    for i in range(8):
        write(tmp_path / "a+b*2" / f"{i}.png", encode(np.full((8, 8), i, np.uint8)))
    source = open_source(DataConfig(source=f"digits*3+folder:{tmp_path}/a+b*2*1", validation_share=0.25))
    assert source.splits["train"].counts == (813, 271) and source.splits["validation"].num_examples == 182
    assert source.name == f"the mix of digits and folder:{tmp_path}/a+b*2"
    assert "digits: 813 images of an epoch, from 1,078" in source.notes


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("folder:a+b", [("folder:a+b", None)]),
        ("folder:a*0.5", [("folder:a*0.5", None)]),
        ("tfds:a+folder:B", [("tfds:a", None), ("folder:B", None)]),
        ("tfds:a*0.7+folder:B*.3", [("tfds:a", 0.7), ("folder:B", 0.3)]),
        ("digits+tfds:a:1.0.0+digits", [("digits", None), ("tfds:a:1.0.0", None), ("digits", None)]),
    ],
)
def test_the_form_of_a_mix(text, sources):
    assert DataConfig(source=text).sources == tuple(sources)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tfds:a*0.5+digits", "data.source='tfds:a*0.5+digits': give a weight to each source, or to none."),
        ("tfds:a*0+digits*1", "data.source='tfds:a*0+digits*1': weights must be above 0."),
        (
            "mnist+digits",
            "data.source='mnist' is not digits, tfds:NAME, folder:PATH, shards:PATH or webd",
        ),
    ],
)
def test_a_mix_of_another_form_is_refused(text, message):
    with pytest.raises(UserError, match=re.escape(message)):
        DataConfig(source=text)
