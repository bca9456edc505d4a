"""Contenders of the benchmark of training steps on JAX and PyTorch; those on TensorFlow run in tests/launch."""

import dataclasses

import pytest

from experiments.benchmarks.contenders.form import random_batch
from experiments.benchmarks.settings import PYTORCH, StepSettings
from experiments.benchmarks.turns import Worker

RATIO = 0.5
SMALL = StepSettings(depths=(1,), dims=(4,), image_size=8, batch_size=2, execution=("sparse", "dense", PYTORCH))


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_executions_of_keras_compute_the_same(backend):
    pytest.importorskip(backend)
    losses = {}
    for execution in ("sparse", "dense"):
        with Worker(dataclasses.replace(SMALL, backend=backend), RATIO, execution) as worker:
            losses[execution] = worker.opening["first_loss"], worker.steps()["loss"]
    assert losses["sparse"] == pytest.approx(losses["dense"], rel=1e-5)


def test_pytorch_compiles_its_model_and_trains_it():
    torch = pytest.importorskip("torch")
    from experiments.benchmarks.pytorch_masked_dense import MaskedDenseFCMAE

    with Worker(SMALL, RATIO, PYTORCH) as worker:
        last = worker.steps()["loss"]
    assert worker.opening["note"] == ""  # it says why where the model ran uncompiled
    torch.manual_seed(SMALL.seed)
    model = MaskedDenseFCMAE(*SMALL.stages, SMALL.decoder_dim)
    images, visible = map(torch.tensor, random_batch(SMALL, RATIO))
    expected = model(images.permute(0, 3, 1, 2), visible).item()
    assert worker.opening["first_loss"] == pytest.approx(expected, rel=1e-5)
    assert last < expected
