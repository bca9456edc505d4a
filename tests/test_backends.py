"""The same weights compute the same on JAX and PyTorch as on TensorFlow; `fit` trains there, and on devices of JAX."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import backend_outputs
from tests.comparison import assert_close

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    backend_outputs.write_weights(folder)
    return folder


def run(backend, folder):
    """Returns what another process computes on a backend, `{name: array}`."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # JAX alone splits the CPU by it
    command = [sys.executable, "-m", "tests.backend_outputs", str(folder)]
    outcome = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    with np.load(folder / f"outputs_{backend}.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_outputs_are_those_of_this_process_and_training_lowers_the_loss(backend, folder):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    found = run(backend, folder)
    expected = backend_outputs.outputs(folder)
    assert expected.keys() == {name for name in found if not name.startswith(("fit/", "one/", "all/"))}
    for name, value in expected.items():
        assert_close(found[name], value, 1e-4)
    for name in ("fit/v2", "fit/fcmae"):
        before, after = found[name]
        assert after < 0.9 * before, name
    if backend == "jax":
        assert_devices_train_alike(found)


def assert_devices_train_alike(found):
    """Asserts that an autoencoder ends alike on one device and on two, within rounding."""
    assert (found["one/devices"], found["all/devices"]) == (1, 2)
    names = [name.removeprefix("one/") for name in found if name.startswith("one/")]
    assert len(names) > 20 and names == [name.removeprefix("all/") for name in found if name.startswith("all/")]
    for name in set(names) - {"devices"}:
        np.testing.assert_allclose(found[f"all/{name}"], found[f"one/{name}"], rtol=0, atol=1e-5, err_msg=name)


def test_no_backend_is_imported_by_the_models_themselves(tmp_path):
    """TensorFlow, JAX and PyTorch come through Keras alone."""
    code = "import convnext, fcmae, sys; print(sorted({'tensorflow', 'torch', 'jax', 'wandb'} & set(sys.modules)))"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    outcome = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert outcome.stdout.strip() == "['jax']", outcome.stdout + outcome.stderr
