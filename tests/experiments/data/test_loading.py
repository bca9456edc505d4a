"""Batches of examples of which some cannot be loaded."""

import types

import numpy as np
import pytest
import tensorflow as tf

from experiments.data.pipeline import load_batches

COUNT = 90
FALLIBLE = types.SimpleNamespace(can_fail=True)


def load(value):
    tf.debugging.assert_greater(value, tf.constant(0, tf.int64))
    return value, tf.constant(1.0)


def finish(value, weight):
    return {"values": value, "weights": weight}


@pytest.mark.parametrize("batch_size", [1, 7, 40])
@pytest.mark.parametrize("broken", [[], [0], [3, 17, 18, 39, 40, 79, 89], list(range(48)), list(range(COUNT))])
def test_what_cannot_be_loaded_is_zero_and_all_the_rest_keeps_its_place(batch_size, broken):
    values = np.arange(1, COUNT + 1)
    values[broken] = -1
    examples = tf.data.Dataset.from_tensor_slices((values,))
    batches = list(load_batches(FALLIBLE, examples, load, finish, batch_size).as_numpy_iterator())
    assert [len(batch["values"]) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate([batch["values"] for batch in batches]), np.maximum(values, 0))
    np.testing.assert_array_equal(np.concatenate([batch["weights"] for batch in batches]), values > 0)
