"""A `.keras` file in a process that knows nothing but the packages' names, and training at half precision."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from convnext import ConvNeXtV1, ConvNeXtV2
from fcmae import FCMAE
from tests.comparison import to_numpy
from tests.small_models import random_images, random_visible, small_backbone

ROOT = pathlib.Path(__file__).parents[2]
# Prints nothing; loads, checks that the optimizer is where it was, and trains on.
LOAD_AND_GO_ON = """
import sys, numpy as np, keras
import convnext, fcmae
model = keras.models.load_model(sys.argv[1])
data = np.load(sys.argv[2])
outputs = model.predict_on_batch(data["images"]) if "labels" in data else model.predict_patches(
    data["images"], data["visible"])
if "steps" in data:
    assert int(model.optimizer.iterations) == data["steps"], model.optimizer.iterations
    moments = [keras.ops.convert_to_numpy(variable) for variable in model.optimizer.variables]
    assert all(np.array_equal(value, data[f"moment_{i}"]) for i, value in enumerate(moments)), "moments"
    model.fit(data["images"], data["labels"] if "labels" in data else None, verbose=0)
np.save(sys.argv[3], keras.ops.convert_to_numpy(outputs))
"""


def in_new_process(tmp_path, model, **data):
    """Saves a model, loads it in a new process, and returns what it computes there."""
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", **data)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LOAD_AND_GO_ON, *(str(tmp_path / name) for name in ("model.keras", "data.npz"))]
    outcome = subprocess.run(
        [*command, str(tmp_path / "outputs.npy")], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    return np.load(tmp_path / "outputs.npy")


def state_of(optimizer):
    moments = [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]
    return {"steps": int(optimizer.iterations), **{f"moment_{i}": value for i, value in enumerate(moments)}}


@pytest.mark.parametrize("version", [ConvNeXtV1, ConvNeXtV2])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_classifier_is_loaded_in_a_new_process(tmp_path, version, compiled):
    model = small_backbone(model=version, include_top=True, num_classes=5, drop_path_rate=0.2)
    images, labels, state = random_images(4, 32, 48, 3), np.arange(4), {}
    if compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adamw", loss, metrics=["accuracy"])
        model.fit(images, labels, batch_size=2, verbose=0)
        state = state_of(model.optimizer)
        assert state["steps"] == 2
    found = in_new_process(tmp_path, model, images=images, labels=labels, **state)
    np.testing.assert_allclose(found, to_numpy(model.predict_on_batch(images)), rtol=1e-5, atol=1e-6)


def test_a_model_of_features_is_saved_cloned_and_loaded(tmp_path):
    backbone = small_backbone(model=ConvNeXtV1, drop_path_rate=0.1)
    inputs = keras.Input((32, 48, 3))
    model = keras.Model(inputs, backbone.extract_features(inputs))
    model.save(tmp_path / "features.keras")
    loaded = keras.models.load_model(tmp_path / "features.keras")
    images = random_images(2, 32, 48, 3)
    for one, other in zip(loaded(images), backbone.extract_features(images), strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
    assert len(keras.models.clone_model(model)(images)) == 3


@pytest.mark.parametrize("compiled", [False, True])
def test_an_autoencoder_is_loaded_in_a_new_process(tmp_path, compiled):
    model = FCMAE(small_backbone(), decoder_dim=8)
    images, visible, state = random_images(4, 32, 48, 3), random_visible(4, model.num_patches, model.num_visible), {}
    if compiled:
        model.compile("adamw")
        model.fit(images, batch_size=2, verbose=0)
        state = state_of(model.optimizer)
    found = in_new_process(tmp_path, model, images=images, visible=visible, **state)
    np.testing.assert_allclose(found, to_numpy(model.predict_patches(images, visible)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("version", [ConvNeXtV1, ConvNeXtV2])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_classifier_trains_at_half_precision(version, policy):
    keras.utils.set_random_seed(0)
    model = small_backbone(model=version, include_top=True, num_classes=4, dtype=policy)
    labels = np.arange(16) % 4
    images = random_images(16, 32, 48, 3) + labels[:, None, None, None].astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-2), loss, jit_compile=False)
    before = model.evaluate(images, labels, verbose=0)
    model.fit(images, labels, batch_size=4, epochs=6, verbose=0)
    assert model.evaluate(images, labels, verbose=0) < 0.9 * before
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_an_autoencoder_trains_at_half_precision(policy):
    keras.utils.set_random_seed(0)
    model = FCMAE(small_backbone(dtype=policy), decoder_dim=8, dtype=policy)
    model.compile(keras.optimizers.AdamW(1e-2), jit_compile=False)
    images = 0.1 * random_images(16, 32, 48, 3) + np.linspace(-1.0, 1.0, 48, dtype="float32")[:, None]
    losses = model.fit(images, batch_size=4, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
