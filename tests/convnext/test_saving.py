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
# Loads every model of a folder, checks that its optimizer is where it was, and trains on.
LOAD_AND_GO_ON = """
import pathlib, sys, numpy as np, keras
import convnext, fcmae
for path in pathlib.Path(sys.argv[1]).glob("*.keras"):
    model = keras.models.load_model(path)
    data = np.load(path.with_suffix(".npz"))
    outputs = model(data["images"]) if "labels" in data else model.predict_patches(data["images"], data["visible"])
    if "steps" in data:
        assert int(model.optimizer.iterations) == data["steps"], model.optimizer.iterations
        moments = [keras.ops.convert_to_numpy(variable) for variable in model.optimizer.variables]
        assert all(np.array_equal(value, data[f"moment_{i}"]) for i, value in enumerate(moments)), "moments"
        model.fit(data["images"], data["labels"] if "labels" in data else None, verbose=0)
    np.save(path.with_suffix(".npy"), keras.ops.convert_to_numpy(outputs))
"""
IMAGES = random_images(4, 32, 48, 3)
LABELS = np.arange(4)


SHALLOW = {"depths": (1, 1), "dims": (4, 6)}


def classifier(version):
    return small_backbone(model=version, include_top=True, num_classes=5, drop_path_rate=0.2, **SHALLOW)


def autoencoder():
    return FCMAE(small_backbone(**SHALLOW), decoder_dim=8)


def compiled(model, labels=None):
    """The model after two steps; XLA would compile them for longer than they take."""
    loss = None if labels is None else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adamw", loss, metrics=["accuracy"] if loss else None, jit_compile=False)
    model.fit(IMAGES, labels, batch_size=2, verbose=0)
    return model


MODELS = {
    "classifier of version 1": lambda: classifier(ConvNeXtV1),
    "trained classifier": lambda: compiled(classifier(ConvNeXtV2), LABELS),
    "trained autoencoder": lambda: compiled(autoencoder()),
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """`{name: (here, there)}`: what each model computes in this process, and loaded in a new one."""
    folder, here = tmp_path_factory.mktemp("models"), {}
    for name, make in MODELS.items():
        model = make()
        model.save(folder / f"{name}.keras")
        data = {"images": IMAGES}
        if isinstance(model, FCMAE):
            data["visible"] = random_visible(4, model.num_patches, model.num_visible)
            here[name] = model.predict_patches(IMAGES, data["visible"])
        else:
            data["labels"] = LABELS
            here[name] = model(IMAGES)
        np.savez(folder / f"{name}.npz", **data, **(state_of(model.optimizer) if model.compiled else {}))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LOAD_AND_GO_ON, str(folder)]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    return {name: (to_numpy(value), np.load(folder / f"{name}.npy")) for name, value in here.items()}


def state_of(optimizer):
    moments = [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]
    assert int(optimizer.iterations) == 2
    return {"steps": 2, **{f"moment_{i}": value for i, value in enumerate(moments)}}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_loaded_in_a_new_process_and_goes_on(outputs, name):
    here, there = outputs[name]
    np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)


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


@pytest.mark.parametrize(("version", "policy"), [(ConvNeXtV1, "mixed_float16"), (ConvNeXtV2, "mixed_bfloat16")])
def test_a_classifier_trains_at_half_precision(version, policy):
    keras.utils.set_random_seed(0)
    model = small_backbone(model=version, include_top=True, num_classes=4, dtype=policy, **SHALLOW)
    labels = np.arange(16) % 4
    images = random_images(16, 32, 48, 3) + labels[:, None, None, None].astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-2), loss, jit_compile=False)
    before = model.evaluate(images, labels, verbose=0)
    model.fit(images, labels, batch_size=4, epochs=6, verbose=0)
    assert model.evaluate(images, labels, verbose=0) < 0.9 * before
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}


def test_an_autoencoder_trains_at_half_precision():
    policy = "mixed_float16"
    keras.utils.set_random_seed(0)
    model = FCMAE(small_backbone(dtype=policy, **SHALLOW), decoder_dim=8, dtype=policy)
    model.compile(keras.optimizers.AdamW(1e-2))
    images = 0.1 * random_images(16, 32, 48, 3) + np.linspace(-1.0, 1.0, 48, dtype="float32")[:, None]
    losses = model.fit(images, batch_size=4, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
