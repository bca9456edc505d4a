"""What is computed in float32 under every precision policy, and what is not."""

import keras
import numpy as np
import pytest

from convnext import StochasticDepth
from fcmae import FCMAE, StemMaskedFCMAE
from tests import references
from tests.comparison import assert_close, to_numpy
from tests.small_models import parts_of, random_images, random_visible, randomize, small_backbone, small_fcmae

POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]


def smooth_images(offset=1.0, rise=1e-3):
    """`(4, 32, 48, 3)` float32: in each patch the same slope, which half precision takes for a step or two."""
    patch = offset + rise * np.mgrid[:8, :8].sum(axis=0) / 7.0
    return np.tile(patch[..., None], (4, 4, 6, 3)).astype("float32")


def predicting_nothing(dtype, model=FCMAE, **arguments):
    """An autoencoder that predicts 0 everywhere: its loss is the mean square of the targets, whatever is masked."""
    backbone = small_backbone(dtype=dtype)
    autoencoder = model(backbone, decoder_dim=8, dtype=dtype, **arguments)
    autoencoder.decoder.prediction.kernel.assign(np.zeros((8, 192)))
    autoencoder.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    return autoencoder


def loss_of_a_call(model, images):
    model(images)
    return float(model.losses[0])


def loss_within(model, images):
    inputs = keras.Input(images.shape[1:])
    outer = keras.Model(inputs, model(inputs))
    outer.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    return outer.evaluate(images, verbose=0)


LOSSES = {
    "fit": lambda model, images: model.fit(images, verbose=0).history["loss"][0],
    "evaluate": lambda model, images: model.evaluate(images, verbose=0),
    "call": loss_of_a_call,
    "within another model": loss_within,
}


@pytest.mark.parametrize("entry", LOSSES)
@pytest.mark.parametrize("policy", POLICIES)
def test_targets_are_computed_from_unrounded_pixels(policy, entry):
    images = smooth_images()
    expected = np.mean(references.targets(images.astype("float64"), 8) ** 2)
    assert 0.1 < expected < 0.2
    assert LOSSES[entry](predicting_nothing(policy), images) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "arguments", [{"normalize_targets": False}, {"model": StemMaskedFCMAE}, {"execution": "dense"}]
)
def test_targets_are_unrounded_in_each_kind_of_autoencoder(arguments):
    images = smooth_images(offset=0.0, rise=0.01)
    expected = np.mean(references.targets(images.astype("float64"), 8, arguments.get("normalize_targets", True)) ** 2)
    model = predicting_nothing("mixed_bfloat16", **arguments)
    assert model.evaluate(images, verbose=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float16", "float64"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_images_of_any_dtype_have_the_loss_of_their_values(policy, dtype):
    model = small_fcmae(dtype=policy)
    randomize(parts_of(model), scale=0.2)
    images = np.clip(10.0 * random_images(2, 32, 48, 3) + 100.0, 0, 255).astype(dtype)
    visible = random_visible(2, 24, 9)
    model(images, visible)
    loss = to_numpy(model.losses[0])
    prediction = to_numpy(model.predict_patches(images, visible))
    expected = references.losses(prediction, references.targets(images.astype("float64"), 8), visible)
    assert_close(loss, expected.mean(), 1e-5)


def test_the_encoder_computes_in_half_precision(monkeypatch):
    model = small_fcmae(dtype="mixed_bfloat16")
    seen = []
    stem = model.backbone.stem.conv
    monkeypatch.setattr(stem, "call", lambda inputs, call=stem.call: seen.append(inputs) or call(inputs))
    outputs = model(random_images(2, 32, 48, 3))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert [keras.backend.standardize_dtype(each.dtype) for each in seen] == ["bfloat16"]


@pytest.mark.parametrize("copy", ["file", "clone"])
def test_a_copy_has_the_policies_and_the_targets_of_the_model(copy, tmp_path):
    model = predicting_nothing("mixed_bfloat16")
    if copy == "file":
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
    else:
        again = keras.models.clone_model(model)
        again.set_weights(model.get_weights())
    assert [part.dtype_policy.name for part in (again, again.backbone, again.decoder)] == ["mixed_bfloat16"] * 3
    images = smooth_images()
    assert loss_of_a_call(again, images) == pytest.approx(loss_of_a_call(model, images), rel=1e-6)


def drawn_dtypes(monkeypatch, function):
    """The dtypes of the random numbers that are drawn in `function()`, where the default is a half precision."""
    drawn, uniform = [], keras.random.uniform

    def spy(*arguments, **named_arguments):
        values = uniform(*arguments, **named_arguments)
        drawn.append(keras.backend.standardize_dtype(values.dtype))
        return values

    monkeypatch.setattr(keras.random, "uniform", spy)
    keras.config.set_floatx("bfloat16")
    try:
        function()
    finally:
        keras.config.set_floatx("float32")
    return drawn


def test_random_numbers_that_are_compared_are_float32(monkeypatch):
    """The 256 values of bfloat16 in [0, 1) would give ties among patches, and rates that are not those asked for."""
    model = small_fcmae(dtype="float32")
    images = random_images(2, 32, 48, 3)
    assert drawn_dtypes(monkeypatch, lambda: model(images)) == ["float32"]
    layer = StochasticDepth(0.1, dtype="float32")
    assert drawn_dtypes(monkeypatch, lambda: layer(images, training=True)) == ["float32"]
