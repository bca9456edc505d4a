"""How tests compare numbers and take gradients."""

import numpy as np
import tensorflow as tf
from keras import ops


def to_numpy(tensor):
    """A tensor, variable or array of any precision as float64."""
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")), "float64")


def assert_close(actual, expected, tolerance):
    """Asserts that two arrays agree within `tolerance`, relative to the norm and to the largest value."""
    actual, expected = to_numpy(actual), np.asarray(expected, "float64")
    assert actual.shape == expected.shape
    difference = actual - expected
    by_norm = np.linalg.norm(difference) / np.linalg.norm(expected)
    by_largest = np.max(np.abs(difference)) / np.max(np.abs(expected))
    # NaN compares false, so it fails here.
    assert by_norm <= tolerance, f"relative to the norm they differ by {by_norm:.2e}"
    assert by_largest <= tolerance, f"relative to the largest value they differ by {by_largest:.2e}"


def gradients(function, variables):
    """Returns the gradients of the scalar `function()` as arrays, one a variable."""
    values = [getattr(variable, "value", variable) for variable in variables]
    with tf.GradientTape() as tape:
        tape.watch(values)
        result = function()
    return [to_numpy(gradient) for gradient in tape.gradient(result, values)]
