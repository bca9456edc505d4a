"""Pixels without data: what they hold changes neither targets, nor loss, nor gradient."""

import numpy as np
import pytest
from keras import ops

from fcmae.encoder import EXECUTIONS
from fcmae.loss import patch_statistics, reconstruction_loss, reconstruction_targets
from fcmae.visualize import reconstruction_panels
from tests import references
from tests.comparison import assert_close, gradients, to_numpy
from tests.small_models import parts_of, random_images, random_visible, randomize, small_fcmae

SHAPE = (2, 16, 24, 3)
IMAGES, VISIBLE = random_images(*SHAPE), random_visible(2, 6, 2)


def validity(share=0.7, seed=3):
    """Pixels with data, channel by channel; of one patch and of one image there is none, and of one patch one value."""
    valid = (np.random.default_rng(seed).random(SHAPE) < share).astype("float32")
    valid[0, :8, :8] = 0.0
    valid[0, 8:, 16:] = 0.0
    valid[0, 8, 16, 1] = 1.0
    return valid


def filled(valid, value):
    return np.where(valid > 0, IMAGES, np.float32(value))


def expected_losses(prediction, images, valid, normalize):
    """The mean squared error over all hidden values with data, in NumPy, patch by patch."""
    patches, known = (references.patches(values.astype("float64"), 8) for values in (images, valid))
    losses = []
    for i in range(len(images)):
        errors = []
        for j in np.flatnonzero(VISIBLE[i] == 0):
            values, chosen = patches[i, j], known[i, j] > 0
            mean = values[chosen].mean() if chosen.any() else 0.0
            variance = values[chosen].var(ddof=1) if chosen.sum() > 1 else 0.0
            target = (values - mean) / np.sqrt(variance + 1e-6) if normalize else values
            errors += [(prediction[i, j] - target)[chosen] ** 2]
        errors = np.concatenate(errors)
        losses.append(errors.mean() if errors.size else 0.0)
    return losses


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("execution", EXECUTIONS)
def test_the_loss_is_that_of_the_values_with_data(normalize, execution):
    model = small_fcmae(SHAPE[1:], normalize_targets=normalize, execution=execution)
    randomize(parts_of(model))
    valid = validity()
    zeroed = filled(valid, 0.0)
    prediction = to_numpy(model.predict_patches(zeroed, VISIBLE)).astype("float64")
    expected = expected_losses(prediction, zeroed, valid, normalize)
    assert_close(model.image_losses(filled(valid, np.nan), VISIBLE, valid=valid), expected, 1e-5)
    model(filled(valid, np.nan), visible=VISIBLE, valid=valid)
    assert_close(model.losses[0], np.mean(expected), 1e-5)


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30, 7.0])
def test_what_stands_in_pixels_without_data_changes_neither_loss_nor_gradient(execution, value):
    model = small_fcmae(SHAPE[1:], execution=execution)
    variables = parts_of(model)
    randomize(variables)
    valid = validity()

    def outcome(images):
        losses = to_numpy(model.image_losses(images, VISIBLE, training=True, valid=valid))
        loss = lambda: ops.sum(model.image_losses(images, VISIBLE, training=True, valid=valid))  # noqa: E731
        return [losses, *map(to_numpy, gradients(loss, list(variables.values())))]

    for one, other in zip(outcome(filled(valid, value)), outcome(filled(valid, 0.0))):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, other)


def test_where_all_pixels_have_data_the_loss_is_the_usual_one():
    model = small_fcmae(SHAPE[1:])
    randomize(parts_of(model))
    usual = model.image_losses(IMAGES, VISIBLE)
    for shape in (SHAPE, (*SHAPE[:3], 1)):
        assert_close(model.image_losses(IMAGES, VISIBLE, valid=np.ones(shape, "float32")), usual, 1e-5)


def test_an_image_without_data_has_no_loss_and_no_gradient():
    patches = np.zeros((1, 2, 12), "float32")
    targets = reconstruction_targets(patches, valid=patches)
    prediction = ops.convert_to_tensor(random_images(1, 2, 12))
    loss = lambda: ops.sum(reconstruction_loss(prediction, targets, patches))  # noqa: E731
    assert not to_numpy(targets).any() and float(loss()) == 0.0
    assert not to_numpy(gradients(loss, [prediction])[0]).any()


def test_pictures_undo_the_statistics_of_the_values_with_data():
    model = small_fcmae(SHAPE[1:])
    randomize(parts_of(model), scale=0.1)
    valid = validity()
    images = filled(valid, 0.0)
    _, _, picture = reconstruction_panels(model, images, VISIBLE, (0.5,) * 3, (0.1,) * 3, valid)
    mean, std = patch_statistics(references.patches(images, 8), references.patches(valid, 8))
    prediction = to_numpy(model.predict_patches(images, VISIBLE)) * to_numpy(std) + to_numpy(mean)
    hidden = np.argmin(VISIBLE[0])
    row, column = divmod(int(hidden), 3)
    shown = picture[0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8].reshape(-1)
    assert_close(shown, np.clip(prediction[0, hidden] * 0.1 + 0.5, 0, 1), 1e-5)
