"""The same weights compute the same on JAX and PyTorch as on TensorFlow; `fit` trains there, and on devices of JAX."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

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
    # JAX alone splits the CPU by it.
    environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    command = [sys.executable, "-m", "tests.backend_outputs", str(folder)]
    outcome = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    with np.load(folder / f"outputs_{backend}.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def found(folder):
    """Runs each backend once: from its name to `{name: array}`."""
    done = {}

    def outputs_of(backend):
        if importlib.util.find_spec(backend) is None:
            pytest.skip(f"{backend} is not installed")
        if backend not in done:
            done[backend] = run(backend, folder)
        return done[backend]

    return outputs_of


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_outputs_are_those_of_this_process_and_training_lowers_the_loss(backend, folder, found):
    actual, expected = found(backend), backend_outputs.outputs(folder)
    others = ("fit/", "one/", "all/", "images a device/", "gelu")
    assert expected.keys() == {name for name in actual if not name.startswith(others)}
    for name, value in expected.items():
        assert_close(actual[name], value, 1e-4)
    for name in ("fit/v2", "fit/fcmae"):
        before, after = actual[name]
        assert after < 0.9 * before, name


def test_devices_of_jax_train_as_one_does(found):
    """By gradient descent, in which an error of the gradient is one of the same size in the update."""
    one, both = (
        {name.removeprefix(prefix): value for name, value in found("jax").items() if name.startswith(prefix)}
        for prefix in ("one/", "all/")
    )
    assert (one.pop("devices"), both.pop("devices")) == (1, 2) and one.keys() == both.keys() and len(one) > 60
    np.testing.assert_allclose(both.pop("losses"), one.pop("losses"), rtol=1e-5)
    steps = 8
    for name, (before, after) in one.items():
        # Gradients agree to 1e-4 as wherever they are computed in another order; each step rounds the weight itself.
        bound = 1e-4 * np.linalg.norm(after - before) + steps * 2.0**-24 * np.linalg.norm(after)
        assert np.linalg.norm(both[name][1] - after) <= bound, name


def test_devices_of_jax_share_the_images(found):
    for execution in ("sparse", "dense"):
        assert found("jax")[f"images a device/{execution}"].tolist() == [2, 2], execution


@pytest.mark.parametrize("dtype, bound", [("float32", 2.0**-21), ("bfloat16", 2.0**-8)])
def test_gelu_of_jax_is_exact_up_to_the_rounding_of_its_output(dtype, bound, found):
    x = backend_outputs.GELU_INPUTS
    probability = stats.norm.cdf(x)
    np.testing.assert_allclose(found("jax")[f"gelu/{dtype}"], x * probability, rtol=bound, atol=2e-6)
    slope = probability + x * stats.norm.pdf(x)
    np.testing.assert_allclose(found("jax")[f"gelu gradient/{dtype}"], slope, rtol=bound, atol=2e-6)


def test_no_backend_is_imported_by_the_models_themselves(tmp_path):
    """TensorFlow, JAX and PyTorch come through Keras alone."""
    code = "import convnext, fcmae, sys; print(sorted({'tensorflow', 'torch', 'jax', 'wandb'} & set(sys.modules)))"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    outcome = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert outcome.stdout.strip() == "['jax']", outcome.stdout + outcome.stderr
