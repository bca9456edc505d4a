"""Targets and reconstruction loss."""

import numpy as np
import pytest
from keras import ops

from fcmae.loss import patch_statistics, reconstruction_loss, reconstruction_targets
from tests import references
from tests.comparison import assert_close, gradients, to_numpy
from tests.small_models import random_images, random_visible


def random_case():
    prediction, targets = random_images(3, 10, 12, seed=1), random_images(3, 10, 12, seed=2)
    return prediction, targets, random_visible(3, 10, 4)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("size", "channels"), [(8, 3), (2, 1)])
def test_targets_equal_the_reference(normalize, size, channels):
    images = 3.0 + 2.0 * random_images(2, 16, 24, channels)
    expected = references.targets(images.astype("float64"), size, normalize)
    assert_close(reconstruction_targets(images, size, normalize), expected, 1e-5)


def test_targets_of_faint_patches_equal_the_reference():
    # Variances around the epsilon.
    images = 1e-3 * random_images(2, 16, 24, 3)
    assert_close(reconstruction_targets(images, 8), references.targets(images.astype("float64"), 8), 1e-5)


def test_targets_of_a_constant_patch_are_zero():
    assert not to_numpy(reconstruction_targets(np.full((1, 8, 8, 3), 0.5, "float32"), 8)).any()


def test_patch_statistics_undo_the_normalization():
    images = 3.0 + 2.0 * random_images(2, 16, 24, 3)
    mean, deviation = patch_statistics(references.patches(images, 8))
    restored = to_numpy(reconstruction_targets(images, 8)) * to_numpy(deviation) + to_numpy(mean)
    assert_close(restored, references.patches(images, 8), 1e-6)


def test_loss_equals_the_reference():
    prediction, targets, visible = random_case()
    expected = references.losses(prediction.astype("float64"), targets.astype("float64"), visible)
    assert_close(reconstruction_loss(prediction, targets, visible), expected, 1e-6)


def test_a_visible_patch_does_not_enter_the_loss():
    prediction, targets, visible = random_case()
    before = to_numpy(reconstruction_loss(prediction, targets, visible))
    for changed in ((prediction + visible[..., None], targets), (prediction, targets - 5.0 * visible[..., None])):
        np.testing.assert_array_equal(to_numpy(reconstruction_loss(*changed, visible)), before)


def test_every_hidden_patch_enters_the_loss_with_equal_weight():
    prediction, targets, visible = random_case()
    tensor = ops.convert_to_tensor(prediction)
    (gradient,) = gradients(lambda: ops.sum(reconstruction_loss(tensor, targets, visible)), [tensor])
    expected = 2.0 * (prediction - targets) * (visible == 0)[..., None] / (6 * 12)
    assert_close(gradient, expected, 1e-5)


def test_loss_is_float32_for_predictions_of_half_precision():
    prediction, targets, visible = random_case()
    # Errors whose squares overflow float16.
    rounded = ops.cast(300.0 * prediction, "float16")
    loss = reconstruction_loss(rounded, targets, visible)
    assert loss.dtype == "float32"
    assert_close(loss, references.losses(to_numpy(rounded), targets.astype("float64"), visible), 1e-5)
