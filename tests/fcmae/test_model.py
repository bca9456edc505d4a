"""The autoencoder as a Keras model: prediction, loss, masks, training, saving."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from convnext import ConvNeXtV2
from fcmae import FCMAE
from fcmae.encoder import EXECUTIONS
from fcmae.masking import sample_visible
from tests import references
from tests.comparison import assert_close, gradients, to_numpy
from tests.small_models import (
    parts_of,
    random_images,
    random_visible,
    randomize,
    small_backbone,
    small_fcmae,
)


def reference_losses(model, weights, images, visible):
    grid = visible.reshape(-1, *model.grid)
    images = images.astype("float64")
    latent = references.encode(images, grid, weights, model.backbone.depths)
    prediction = references.decode(latent, grid, references.within(weights, "decoder"), model.decoder_depth)
    return references.losses(prediction, references.targets(images, 8, model.normalize_targets), visible)


@pytest.mark.parametrize("arguments", [{}, {"normalize_targets": False, "decoder_depth": 2, "decoder_dim": 5}])
def test_losses_equal_the_reference(arguments):
    model = small_fcmae((16, 24, 3), **arguments)
    weights = randomize(parts_of(model))
    images, visible = random_images(2, 16, 24, 3), random_visible(2, 6, 2)
    expected = reference_losses(model, weights, images, visible)
    assert_close(model.image_losses(images, visible), expected, 1e-5)
    for training in (False, True):
        model(images, visible=visible, training=training)
        assert len(model.losses) == 1
        assert_close(model.losses[0], expected.mean(), 1e-5)


def test_gradient_equals_differences_of_the_reference():
    model = small_fcmae((16, 24, 2))
    variables = parts_of(model)
    weights = randomize(variables)
    images, visible = random_images(1, 16, 24, 2), random_visible(1, 6, 2)
    rng = np.random.default_rng(1)
    directions = {name: rng.normal(size=value.shape) for name, value in weights.items()}

    def loss():
        return ops.mean(model.image_losses(images, visible))

    def moved(step):
        values = {name: value + step * directions[name] for name, value in weights.items()}
        return reference_losses(model, values, images, visible).mean()

    along = sum(
        np.sum(gradient * directions[name])
        for gradient, name in zip(gradients(loss, list(variables.values())), variables)
    )
    assert along == pytest.approx((moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-4)


def test_the_loss_is_that_of_the_prediction_of_hidden_patches():
    model = small_fcmae()
    randomize(parts_of(model))
    images, visible = random_images(2, 32, 48, 3), random_visible(2, 24, 9)
    prediction = to_numpy(model.predict_patches(images, visible))
    targets = references.targets(images.astype("float64"), 8)
    assert_close(model.image_losses(images, visible), references.losses(prediction, targets, visible), 1e-5)


def test_training_predicts_the_hidden_patches_alone():
    model = small_fcmae()
    randomize(parts_of(model))
    images, visible = random_images(2, 32, 48, 3), random_visible(2, 24, 9)
    everything = to_numpy(model(images, visible, training=False))
    hidden = to_numpy(model(images, visible, training=True))
    assert everything.shape == (2, 24, 192) and hidden.shape == (2, 15, 192)
    for image, kept, of_hidden in zip(everything, visible, hidden):
        np.testing.assert_allclose(of_hidden, image[kept == 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_mask_with_another_number_of_visible_patches_shows_in_the_loss_of_its_image(execution):
    model = small_fcmae(execution=execution)
    images, visible = random_images(3, 32, 48, 3), random_visible(3, 24, 9)
    visible[1, np.argmin(visible[1])] = 1.0
    losses = to_numpy(model.image_losses(images, visible))
    np.testing.assert_array_equal(np.isnan(losses), [False, True, False])
    if execution == "sparse":
        latent = to_numpy(model.encode(images, visible))
        np.testing.assert_array_equal(np.isnan(latent).all(axis=(1, 2, 3)), [False, True, False])


def masks_drawn(model, monkeypatch, images):
    """The masks of one call that is given none."""
    drawn = []
    encode = FCMAE.encode

    def spy(self, images, visible, training=None):
        drawn.append(to_numpy(visible))
        return encode(self, images, visible, training=training)

    with monkeypatch.context() as patch:
        patch.setattr(FCMAE, "encode", spy)
        model(images)
    return drawn[0]


def test_masks_are_drawn_anew_keep_their_number_and_follow_the_seed(monkeypatch):
    images = random_images(16, 32, 48, 3)
    model = small_fcmae(mask_ratio=0.7, seed=5)
    first, second = (masks_drawn(model, monkeypatch, images) for _ in range(2))
    np.testing.assert_array_equal(first.sum(axis=1), 7)
    np.testing.assert_array_equal(second.sum(axis=1), 7)
    assert not np.array_equal(first, second)
    assert len(np.unique(first, axis=0)) > 12
    same, other = (masks_drawn(small_fcmae(mask_ratio=0.7, seed=seed), monkeypatch, images) for seed in (5, 6))
    np.testing.assert_array_equal(same, first)
    assert not np.array_equal(other, first)


def test_fit_lowers_the_loss_with_nothing_but_an_optimizer():
    keras.utils.set_random_seed(0)
    backbone = ConvNeXtV2((1, 1), (8, 16), input_shape=(16, 16, 1), stem_stride=2, include_top=False)
    model = FCMAE(backbone, decoder_dim=16, normalize_targets=False)
    # The same wave all over an image: what is hidden follows from what is seen.
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, (64, 1, 1))
    images = np.sin(np.mgrid[:16, :16][0] * np.pi / 4 + phases)[..., None].astype("float32")
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    history = model.fit(images, batch_size=32, epochs=25, verbose=0).history["loss"]
    assert history[0] > 0.4
    assert history[-1] < 0.5 * history[0]


def test_the_logged_loss_is_the_mean_of_the_losses_of_images():
    model = small_fcmae(seed=5)
    randomize(parts_of(model))
    images = random_images(6, 32, 48, 3)
    model.compile(optimizer=keras.optimizers.SGD(0.0), jit_compile=False)
    logged = model.fit(images, batch_size=6, epochs=1, shuffle=False, verbose=0).history["loss"]
    noise = keras.random.uniform((6, 24), seed=keras.random.SeedGenerator(5))
    visible = sample_visible(noise, model.mask_ratio)
    expected = model.image_losses(images, visible)
    assert_close(logged, [to_numpy(expected).mean()], 1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_loss_is_float32_and_near_the_reference_under_half_precision(policy):
    model = small_fcmae((16, 24, 3), dtype=policy)
    weights = randomize(parts_of(model), scale=0.2)
    images, visible = random_images(2, 16, 24, 3), random_visible(2, 6, 2)
    prediction = model.predict_patches(images, visible)
    assert prediction.dtype == model.compute_dtype
    losses = model.image_losses(images, visible)
    assert losses.dtype == "float32"
    assert_close(losses, reference_losses(model, weights, images, visible), 0.02)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"mask_ratio": 0.75, "decoder_depth": 2, "normalize_targets": False, "seed": 3, "dtype": "mixed_bfloat16"}],
)
def test_a_saved_model_gives_the_same_outputs(tmp_path, arguments):
    model = small_fcmae(**arguments)
    randomize(parts_of(model))
    model.save(tmp_path / "fcmae.keras")
    loaded = keras.models.load_model(tmp_path / "fcmae.keras")
    assert isinstance(loaded, FCMAE)
    assert loaded.get_config() == model.get_config()
    images, visible = random_images(2, 32, 48, 3), random_visible(2, 24, 9)
    np.testing.assert_array_equal(to_numpy(loaded(images, visible)), to_numpy(model(images, visible)))


def test_configuration_makes_an_equal_model():
    arguments = {"mask_ratio": 0.75, "decoder_dim": 6, "decoder_depth": 2, "normalize_targets": False, "seed": 3}
    model = small_fcmae(**arguments)
    copy = FCMAE.from_config(model.get_config())
    assert arguments.items() <= copy.get_config().items()
    assert copy.backbone.get_config() == model.backbone.get_config()
    assert {name: v.shape for name, v in parts_of(copy).items()} == {
        name: v.shape for name, v in parts_of(model).items()
    }


LOAD_IN_A_NEW_PROCESS = """
import sys
import fcmae
import keras
import numpy as np

folder = sys.argv[1]
data = np.load(f"{folder}/inputs.npz")
autoencoder = keras.models.load_model(f"{folder}/fcmae.keras")
encoder = keras.models.load_model(f"{folder}/encoder.keras")
prediction = keras.ops.convert_to_numpy(autoencoder(data["images"], visible=data["visible"]))
latent = keras.ops.convert_to_numpy(encoder(data["images"]))
np.savez(f"{folder}/outputs.npz", prediction=prediction, latent=latent)
"""


def test_saved_models_load_in_a_new_process_that_only_imports_fcmae(tmp_path):
    model = small_fcmae()
    randomize(parts_of(model))
    images, visible = random_images(2, 32, 48, 3), random_visible(2, 24, 9)
    np.savez(tmp_path / "inputs.npz", images=images, visible=visible)
    model.save(tmp_path / "fcmae.keras")
    model.backbone.save(tmp_path / "encoder.keras")
    subprocess.run([sys.executable, "-c", LOAD_IN_A_NEW_PROCESS, str(tmp_path)], check=True, timeout=120)
    outputs = np.load(tmp_path / "outputs.npz")
    assert_close(outputs["prediction"], to_numpy(model.predict_patches(images, visible)), 1e-6)
    assert_close(outputs["latent"], to_numpy(model.backbone(images)), 1e-6)


@pytest.mark.parametrize(
    "backbone_arguments", [{"include_top": True, "num_classes": 5}, {"input_shape": (None, 48, 3)}]
)
def test_a_backbone_with_head_or_of_unknown_size_is_refused(backbone_arguments):
    with pytest.raises(ValueError, match="include_top=False and a known height and width"):
        FCMAE(small_backbone(**backbone_arguments))


def test_an_image_size_that_does_not_divide_is_refused_with_the_nearest_that_do():
    with pytest.raises(ValueError, match="36x48.*32x48 and 40x48"):
        FCMAE(small_backbone((36, 48, 3)))


@pytest.mark.parametrize("ratio", [0.0, 1.0, 1.2])
def test_a_mask_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(ValueError, match=r"must be in \(0, 1\)"):
        small_fcmae(mask_ratio=ratio)
