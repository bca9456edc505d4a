"""Resizing and pooling of feature maps against TensorFlow's and a loop in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from convnext.segmentation.resizing import pool_to_grid, resize
from tests.small_models import random_images


@pytest.mark.parametrize("size", [(20, 28), (5, 7), (3, 30), (1, 1), (11, 5)])
def test_resizing_is_that_of_tensorflow(size):
    images = random_images(2, 5, 7, 3)
    expected = tf.image.resize(images, size, method="bilinear", antialias=False)
    np.testing.assert_allclose(resize(images, *size), expected, atol=1e-5)


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(12, 6), (5, 7), (1, 2)])
def test_pooling_averages_the_cells_of_the_grid(size, bins):
    images = random_images(2, *size, 3).astype("float64")
    ranges = [[(i * side // bins, -(-(i + 1) * side // bins)) for i in range(bins)] for side in size]
    cells = [[images[:, a:b, c:d].mean(axis=(1, 2)) for c, d in ranges[1]] for a, b in ranges[0]]
    expected = np.moveaxis(np.array(cells), 2, 0)
    np.testing.assert_allclose(pool_to_grid(images.astype("float32"), bins), expected, atol=1e-6)


def test_sizes_may_become_known_when_a_graph_runs():
    images = random_images(2, 5, 7, 3)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((2,), tf.int32)])
    def of_any_size(images, size):
        return resize(images, size[0], size[1]), pool_to_grid(images, 2)

    resized, pooled = of_any_size(images, (9, 4))
    np.testing.assert_allclose(resized, resize(images, 9, 4), atol=1e-6)
    np.testing.assert_allclose(pooled, pool_to_grid(images, 2), atol=1e-6)
