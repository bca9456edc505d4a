"""Pictures of reconstructions."""

import numpy as np
import pytest

from fcmae.visualize import reconstruction_panels
from tests import references
from tests.comparison import assert_close, to_numpy
from tests.small_models import parts_of, random_visible, randomize, small_fcmae


@pytest.fixture(scope="module", params=[(True, 3), (False, 3), (True, 1)])
def case(request):
    """A model, images in [0, 1], the normalized images, masks, and the statistics of the channels."""
    normalize_targets, channels = request.param
    model = small_fcmae((32, 48, channels), normalize_targets=normalize_targets)
    randomize(parts_of(model), scale=0.1)
    pixels = np.random.default_rng(0).random((2, 32, 48, channels)).astype("float32")
    mean, std = [0.3, 0.4, 0.6][:channels], [0.2, 0.5, 0.25][:channels]
    images = ((pixels - np.float32(mean)) / np.float32(std)).astype("float32")
    return model, pixels, images, random_visible(2, 24, 9), mean, std


def visible_pixels(visible, channels):
    mask = np.stack([np.kron(image.reshape(4, 6), np.ones((8, 8))) for image in visible])
    return np.repeat(mask[..., None], channels, axis=-1) > 0


def test_panels_equal_numpy(case):
    model, pixels, images, visible, mean, std = case
    original, masked, reconstruction = reconstruction_panels(model, images, visible, mean, std)
    kept = visible_pixels(visible, pixels.shape[-1])
    assert_close(original, pixels, 1e-6)
    assert_close(masked, np.where(kept, pixels, 0.5), 1e-6)

    predicted = to_numpy(model.predict_patches(images, visible))
    if model.normalize_targets:
        patches = references.patches(images.astype("float64"), 8)
        deviation = np.sqrt(patches.var(axis=-1, ddof=1, keepdims=True) + 1e-6)
        predicted = predicted * deviation + patches.mean(axis=-1, keepdims=True)
    values = np.empty(pixels.shape)
    for index, (row, column) in enumerate(np.ndindex(4, 6)):
        patch = predicted[:, index].reshape(2, 8, 8, -1)
        values[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = patch
    values = np.clip(values * std + mean, 0.0, 1.0)
    assert_close(reconstruction, np.where(kept, pixels, values), 1e-5)


def test_visible_pixels_are_those_of_the_original_exactly(case):
    model, pixels, images, visible, mean, std = case
    original, masked, reconstruction = reconstruction_panels(model, images, visible, mean, std)
    kept = visible_pixels(visible, pixels.shape[-1])
    np.testing.assert_array_equal(masked[kept], original[kept])
    np.testing.assert_array_equal(reconstruction[kept], original[kept])
    assert np.all(masked[~kept] == 0.5)


def test_panels_stay_within_the_range_of_pixels(case):
    model, _, images, visible, mean, std = case
    panels = reconstruction_panels(model, 10.0 * images, visible, mean, std)
    for panel in panels:
        assert panel.min() >= 0.0 and panel.max() <= 1.0
    assert panels[0].min() == 0.0 and panels[0].max() == 1.0
