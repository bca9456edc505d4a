"""Targets and reconstruction loss."""

import numpy as np
import pytest
from keras import ops

from fcmae.loss import patch_statistics, reconstruction_loss, reconstruction_targets
from fcmae.masking import patchify
from tests import references
from tests.comparison import assert_close, gradients, to_numpy
from tests.small_models import random_images

HIDDEN = np.zeros((3, 10))


def random_case():
    return random_images(3, 10, 12, seed=1), random_images(3, 10, 12, seed=2)


def targets_of(images, size, normalize=True):
    return reconstruction_targets(patchify(images, size), normalize)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("size", "channels"), [(8, 3), (2, 1)])
def test_targets_equal_the_reference(normalize, size, channels):
    images = 3.0 + 2.0 * random_images(2, 16, 24, channels)
    expected = references.targets(images.astype("float64"), size, normalize)
    assert_close(targets_of(images, size, normalize), expected, 1e-5)


def test_targets_of_faint_patches_equal_the_reference():
    # Variances around the epsilon.
    images = 1e-3 * random_images(2, 16, 24, 3)
    assert_close(targets_of(images, 8), references.targets(images.astype("float64"), 8), 1e-5)


def test_targets_of_a_constant_patch_are_zero():
    assert not to_numpy(targets_of(np.full((1, 8, 8, 3), 0.5, "float32"), 8)).any()


def test_patch_statistics_undo_the_normalization():
    images = 3.0 + 2.0 * random_images(2, 16, 24, 3)
    mean, deviation = patch_statistics(references.patches(images, 8))
    restored = to_numpy(targets_of(images, 8)) * to_numpy(deviation) + to_numpy(mean)
    assert_close(restored, references.patches(images, 8), 1e-6)


def test_loss_equals_the_reference():
    prediction, targets = random_case()
    expected = references.losses(prediction.astype("float64"), targets.astype("float64"), HIDDEN)
    assert_close(reconstruction_loss(prediction, targets), expected, 1e-6)


def test_every_hidden_patch_enters_the_loss_with_equal_weight():
    prediction, targets = random_case()
    tensor = ops.convert_to_tensor(prediction)
    (gradient,) = gradients(lambda: ops.sum(reconstruction_loss(tensor, targets)), [tensor])
    assert_close(gradient, 2.0 * (prediction - targets) / (10 * 12), 1e-5)


def test_loss_is_float32_for_predictions_of_half_precision():
    prediction, targets = random_case()
    # Errors whose squares overflow float16.
    rounded = ops.cast(300.0 * prediction, "float16")
    loss = reconstruction_loss(rounded, targets)
    assert loss.dtype == "float32"
    assert_close(loss, references.losses(to_numpy(rounded), targets.astype("float64"), HIDDEN), 1e-5)
