"""The masked encoder: equal to the reference, and nothing of a hidden patch reaches a visible one."""

import numpy as np
import pytest

from fcmae.encoder import encode_dense, encode_sparse
from fcmae.masking import upsample_mask
from tests import references
from tests.comparison import assert_close, to_numpy
from tests.small_models import random_images, random_visible, randomize, small_backbone, variables_of

GRID = (4, 6)


def sparse(backbone, images, visible, training=None):
    """`encode_sparse`, with the number of visible patches taken from the mask."""
    return encode_sparse(backbone, images, visible, int(visible[0].sum()), training=training)


@pytest.fixture(params=[encode_dense, sparse], ids=["dense", "sparse"])
def encode(request):
    return request.param


@pytest.fixture(scope="module")
def backbone():
    model = small_backbone((32, 48, 3))
    randomize(variables_of(model))
    return model


def pixels_of(visible):
    """`(B, H, W, 1)` boolean: the pixels of visible patches."""
    return to_numpy(upsample_mask(visible, GRID, 8)) > 0


@pytest.mark.parametrize(
    ("size", "channels", "arguments"),
    [
        ((32, 48), 3, {}),
        ((24, 16), 1, {"stem_stride": 4, "depths": (1, 2), "dims": (4, 8), "kernel_size": 3}),
        ((12, 15), 2, {"stem_stride": 3, "depths": (2,), "dims": (5,)}),
    ],
)
def test_encoder_equals_the_reference_in_which_hidden_positions_do_not_exist(encode, size, channels, arguments):
    model = small_backbone((*size, channels), **arguments)
    weights = randomize(variables_of(model))
    rows, columns = (side // model.total_stride for side in size)
    images = random_images(2, *size, channels)
    visible = random_visible(2, rows * columns, 2 * rows * columns // 5)
    actual = encode(model, images, visible)
    expected = references.encode(images.astype("float64"), visible.reshape(2, rows, columns), weights, model.depths)
    assert_close(actual, expected, 1e-5)


def test_encoder_equals_the_backbone_where_all_is_visible(encode, backbone):
    images = random_images(2, 32, 48, 3)
    assert_close(encode(backbone, images, np.ones((2, 24), "float32")), to_numpy(backbone(images)), 1e-6)


def test_hidden_pixels_change_no_bit(encode, backbone):
    images = random_images(2, 32, 48, 3)
    visible = random_visible(2, 24, 9)
    changed = np.where(pixels_of(visible), images, 100.0 * random_images(2, 32, 48, 3, seed=1)).astype("float32")
    np.testing.assert_array_equal(
        to_numpy(encode(backbone, changed, visible)), to_numpy(encode(backbone, images, visible))
    )


def test_not_a_number_in_hidden_pixels_stays_there(backbone, encode):
    images = random_images(2, 32, 48, 3)
    visible = random_visible(2, 24, 9)
    broken = np.where(pixels_of(visible), images, np.nan).astype("float32")
    np.testing.assert_array_equal(
        to_numpy(encode(backbone, broken, visible)), to_numpy(encode(backbone, images, visible))
    )


def test_every_visible_patch_enters_its_own_position(encode, backbone):
    images = random_images(1, 32, 48, 3)
    visible = random_visible(1, 24, 9)
    before = to_numpy(encode(backbone, images, visible)).reshape(24, -1)
    for patch in np.flatnonzero(visible[0]):
        chosen = np.eye(24, dtype="float32")[[patch]]
        after = to_numpy(
            encode(backbone, images + 2.0 * random_images(1, 32, 48, 3, seed=2) * pixels_of(chosen), visible)
        )
        assert np.abs(after.reshape(24, -1)[patch] - before[patch]).max() > 1e-3


def test_one_image_does_not_change_another(encode, backbone):
    images = random_images(3, 32, 48, 3)
    visible = random_visible(3, 24, 9)
    changed = images.copy()
    changed[1] = random_images(32, 48, 3, seed=1)
    before, after = to_numpy(encode(backbone, images, visible)), to_numpy(encode(backbone, changed, visible))
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    assert np.abs(after[1] - before[1]).max() > 1e-3


def test_hidden_positions_come_out_zero_and_visible_ones_do_not(encode, backbone):
    visible = random_visible(2, 24, 9)
    latent = to_numpy(encode(backbone, random_images(2, 32, 48, 3), visible)).reshape(2, 24, -1)
    assert not latent[visible == 0].any()
    assert np.abs(latent[visible == 1]).max(axis=-1).min() > 0


def test_stochastic_depth_is_at_work_in_training_and_keeps_hidden_positions_zero(encode):
    model = small_backbone((32, 48, 3), drop_path_rate=0.5)
    randomize(variables_of(model))
    images, visible = random_images(8, 32, 48, 3), random_visible(8, 24, 9)
    training = to_numpy(encode(model, images, visible, training=True))
    inference = to_numpy(encode(model, images, visible, training=False))
    assert np.abs(training - inference).max() > 1e-2
    assert not training.reshape(8, 24, -1)[visible == 0].any()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_near_the_reference(encode, policy):
    model = small_backbone((32, 48, 3), dtype=policy)
    weights = randomize(variables_of(model), scale=0.2)
    images, visible = random_images(2, 32, 48, 3), random_visible(2, 24, 9)
    latent = encode(model, images, visible)
    assert latent.dtype == model.compute_dtype
    expected = references.encode(images.astype("float64"), visible.reshape(2, *GRID), weights, model.depths)
    assert_close(latent, expected, 0.05 if policy == "mixed_bfloat16" else 0.01)


def test_images_that_patches_do_not_tile_are_refused(encode, backbone):
    with pytest.raises(ValueError, match="36x48.*32x48 and 40x48"):
        encode(backbone, random_images(1, 36, 48, 3), np.ones((1, 24), "float32"))
