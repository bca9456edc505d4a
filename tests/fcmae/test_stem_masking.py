"""The ablation that masks after the stem alone: the dense network of the reference, and a mask that fades."""

import keras
import numpy as np

from fcmae import StemMaskedFCMAE
from tests import references
from tests.comparison import assert_close, to_numpy
from tests.small_models import parts_of, random_images, random_visible, randomize, small_backbone

DEPTHS = (1, 2, 1)


def make_model(**arguments):
    return StemMaskedFCMAE(small_backbone((32, 48, 3)), decoder_dim=8, **arguments)


def reference_features(images, visible, weights):
    """`(B, 4, 6, C)`: the stem, zeros at hidden positions, and from there on the backbone as if all were visible."""
    x = references.stem(images, references.within(weights, "stem"))
    x = x * np.repeat(np.repeat(visible.reshape(-1, 4, 6, 1), 4, axis=1), 4, axis=2)
    for i, depth in enumerate(DEPTHS):
        stage = references.within(weights, f"stage_{i}")
        if i:
            x = references.downsampling(x, references.within(stage, "downsampling"))
        for j in range(depth):
            x = references.block(x, references.within(stage, f"block_{j}"))
    return x


def test_features_and_loss_equal_the_reference():
    model = make_model(mask_ratio=0.5)
    weights = randomize(parts_of(model), scale=0.3)
    images, visible = random_images(2, 32, 48, 3), random_visible(2, 24, 12)
    latent = reference_features(images.astype("float64"), visible, weights)
    assert_close(model.encode(images, visible), latent, 1e-5)
    grid = visible.reshape(2, 4, 6)
    prediction = references.decode(latent, grid, references.within(weights, "decoder"))
    expected = references.losses(prediction, references.targets(images.astype("float64"), 8), visible)
    assert_close(model.image_losses(images, visible), expected, 1e-4)


def test_hidden_pixels_reach_nothing_and_it_is_saved_as_what_it_is(tmp_path):
    model = make_model(mask_ratio=0.5)
    randomize(parts_of(model), scale=0.3)
    images, visible = random_images(2, 32, 48, 3), random_visible(2, 24, 12)
    kept = np.repeat(np.repeat(visible.reshape(-1, 4, 6, 1), 8, axis=1), 8, axis=2)
    poisoned = np.where(kept > 0, images, np.nan).astype("float32")
    features = to_numpy(model.encode(images, visible))
    np.testing.assert_array_equal(to_numpy(model.encode(poisoned, visible)), features)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is StemMaskedFCMAE
    np.testing.assert_array_equal(to_numpy(loaded.encode(images, visible)), features)
