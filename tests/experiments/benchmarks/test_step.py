"""The benchmark of training steps: settings, ablations, candidates on JAX and PyTorch, the picture."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convnext.tf_cpu import fusion
from experiments.benchmarks import step
from experiments.benchmarks.candidates import (
    ABLATIONS,
    PYTORCH,
    example_losses,
    make_model_and_optimizer,
    random_batch,
)
from experiments.benchmarks.harness import summarize
from experiments.benchmarks.step import StepSettings
from experiments.config import Config, DataConfig, ModelConfig, PretrainConfig
from experiments.errors import UserError
from experiments.optim.adamw import FusedAdamW, LayerwiseAdamW
from tests.small_models import parts_of, randomize

RATIO = 0.5
TINY = Config(
    model=ModelConfig(depths=(1,), dims=(4,)), data=DataConfig(image_size=8), pretrain=PretrainConfig(batch_size=2)
)
SMALL = StepSettings(TINY, candidates=("sparse", "dense", PYTORCH))


def test_ratio_zero_stands_for_one_hidden_patch():
    settings = StepSettings(mask_ratio=(0.0, 0.6))
    _, visible = random_batch(settings.at(0.0))
    assert visible.shape == (8, 49) and (visible.sum(axis=1) == 48).all()
    assert settings.at(0.0).pretrain.mask_ratio == pytest.approx(1 / 49)
    assert settings.at(0.6).pretrain.mask_ratio == 0.6
    assert (random_batch(settings.at(0.6))[1].sum(axis=1) == 19).all()


def test_the_mask_ratio_is_that_of_the_configuration_unless_others_are_named():
    config = dataclasses.replace(TINY, pretrain=PretrainConfig(mask_ratio=0.25, execution="dense"))
    assert StepSettings(config).ratios == (0.25,) and StepSettings(config, (0.5, 0.75)).ratios == (0.5, 0.75)
    assert StepSettings(config).at(0.25, "sparse").pretrain.execution == "sparse"


def test_the_precision_is_that_of_the_configuration_unless_it_is_given():
    for policy, precision in (("auto", "float32"), ("float32", "float32"), ("mixed_bfloat16", "bfloat16")):
        config = dataclasses.replace(TINY, precision=policy)
        assert StepSettings(config).precision == precision
        assert StepSettings(config, precision="bfloat16").precision == "bfloat16"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("candidates", ("sparse", "fast"), "candidates='fast' is not one of sparse, dense, pytorch."),
        ("ablate", ("speed",), "ablate='speed' is not one of onednn,"),
        ("candidates", (), "candidates is empty"),
        ("candidates", ("dense", "dense"), "candidates has the same value twice."),
        ("mask_ratio", (0.6, 0.6), "mask_ratio has the same value twice."),
        ("precision", "float16", "precision='float16' is not one of float32, bfloat16."),
        ("config", dataclasses.replace(TINY, precision="mixed_float16"), "precision=mixed_float16 is not timed: use"),
        ("mask_ratio", (0.6, 1.0), "must be in (0, 1), got 1.0"),
        ("mask_ratio", (0.99,), "leaves 0 of 49 patches visible"),
        ("rounds", 0, "rounds must be at least 1, got 0."),
        ("warmup", 2, "warmup must be at least 3, got 2."),
        ("config", dataclasses.replace(TINY, pretrain=PretrainConfig(masking="after_stem")), "after_stem is not timed"),
    ],
)
def test_a_wrong_setting_is_named(field, value, says):
    with pytest.raises(UserError) as error:
        StepSettings(**{field: value})
    assert says in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"model": ModelConfig(decoder_depth=2)}, {"pretrain": PretrainConfig(normalize_targets=False)}]
)
def test_pytorch_is_refused_where_it_would_be_another_model(changes):
    config = Config(**changes)
    StepSettings(config)
    with pytest.raises(UserError, match="leave pytorch out"):
        StepSettings(config, candidates=("sparse", PYTORCH))


def test_there_is_a_candidate_for_each_ablation():
    settings = StepSettings(candidates=("dense", "sparse"), ablate=("onednn",))
    assert settings.named == {
        "dense": ("dense", ""),
        "sparse": ("sparse", ""),
        "dense without onednn": ("dense", "onednn"),
    }
    for changes in ({"backend": "jax"}, {"candidates": (PYTORCH, "sparse")}):
        with pytest.raises(UserError, match="ablate is for TensorFlow"):
            dataclasses.replace(settings, **changes)


# The operation that shows what a step goes without, and whether it is the whole step that has it.
SIGNS = {
    "depthwise_gradient": ("DepthwiseConv2dNativeBackpropFilter", False),
    "patch_products": ("Conv2D", False),
    "compiled_chains": ("PartitionedCall", True),
    "masked_only": None,  # the same operations on more patches: see test_flops.py
}


def gradients_and_operations(model, ablation, batch):
    """The gradients of a step, computed in a graph, and the kinds of operations in it."""

    @tf.function
    def graph():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(example_losses(model, *batch, ablation))
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    kinds = {node.type.removeprefix("Stateful") for node in graph.get_concrete_function().graph.get_operations()}
    return [gradient.numpy() for gradient in graph()], kinds


@pytest.mark.parametrize("ablation", SIGNS)
def test_the_gradients_are_the_same_and_computed_otherwise(ablation, monkeypatch):
    assert {*SIGNS, "onednn", "fused_adamw"} == set(ABLATIONS)
    monkeypatch.setattr(fusion, "LEAST_VALUES", 1)
    model_config = ModelConfig(depths=(1, 1), dims=(4, 6), decoder_dim=8)
    config = dataclasses.replace(TINY, model=model_config, data=DataConfig(image_size=24))
    model, _ = make_model_and_optimizer(config, "float32")
    randomize(parts_of(model))
    batch = [tf.constant(array) for array in random_batch(config)]
    expected, whole = gradients_and_operations(model, "", batch)
    actual, without = gradients_and_operations(model, ablation, batch)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    if SIGNS[ablation]:
        operation, of_whole = SIGNS[ablation]
        assert (operation in whole) == of_whole and (operation in without) == (not of_whole)


def test_adamw_without_fusion_takes_the_same_step():
    steps = {}
    for ablation, cls in (("", FusedAdamW), ("fused_adamw", LayerwiseAdamW)):
        model, optimizer = make_model_and_optimizer(SMALL.at(RATIO), "float32", ablation)
        assert type(optimizer) is cls
        optimizer.iterations.assign(500)  # the end of the warmup
        before = [variable.numpy() for variable in model.trainable_variables]
        optimizer.apply([tf.ones_like(value) for value in before], model.trainable_variables)
        steps[ablation] = [value.numpy() - old for value, old in zip(model.trainable_variables, before, strict=True)]
    for one, other in zip(*steps.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-8)  # weights up to 0.1 are rounded by 4e-9
        assert np.abs(one).max() > 5e-5


def test_onednn_is_switched_off_in_the_process_alone(monkeypatch):
    monkeypatch.setattr(step.harness, "Worker", lambda name, module, task, environment: environment)
    settings = StepSettings(ablate=("onednn", "masked_only"))
    switches = {name: step.worker(settings, 0.6, name).get("TF_ENABLE_ONEDNN_OPTS") for name in settings.named}
    assert switches == {"sparse": None, "dense": None, "sparse without onednn": "0", "sparse without masked_only": None}


@pytest.mark.parametrize(("backend", "executions"), [("jax", ("sparse", "dense")), ("torch", ("sparse",))])
def test_the_executions_of_keras_train_and_compute_the_same(backend, executions, monkeypatch):
    """One process each; of PyTorch one is enough: test_backends.py compares what both compute."""
    pytest.importorskip(backend)
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # half of the time; `make test-library` has them
    settings, losses = dataclasses.replace(SMALL, backend=backend), []
    for execution in executions:
        with step.worker(settings, RATIO, execution) as worker:
            losses.append((worker.opening["first_loss"], worker.ask("turn")["loss"]))
    assert losses[0] == pytest.approx(losses[-1], rel=1e-5) and losses[0][1] < losses[0][0]


def test_pytorch_compiles_its_model_and_trains_it():
    torch = pytest.importorskip("torch")
    from experiments.benchmarks.pytorch import MaskedDenseFCMAE

    with step.worker(SMALL, RATIO, PYTORCH) as worker:
        last = worker.ask("turn")["loss"]
    assert worker.opening["note"] == ""  # it says why where the model ran uncompiled
    torch.manual_seed(TINY.seed)
    model = MaskedDenseFCMAE(*TINY.model.stages, TINY.model.decoder_dim)
    images, visible = map(torch.tensor, random_batch(SMALL.at(RATIO)))
    expected = model(images.permute(0, 3, 1, 2), visible).item()
    assert worker.opening["first_loss"] == pytest.approx(expected, rel=1e-5)
    assert last < expected


def table(visible, milliseconds):
    seconds = summarize(0.001 * value for value in milliseconds)
    return {"num_visible": visible, "num_patches": 49, "candidates": {"sparse": {"seconds_per_step": seconds}}}


def test_a_curve_is_drawn(tmp_path):
    settings = {"config": StepSettings().config.to_dict()}
    results = {"settings": settings, "tables": [table(29, [30, 31]), table(12, [10, 11]), table(19, [20, 21])]}
    step.draw_mask_ratios(tmp_path / "ratios.png", results)
    pixels = np.asarray(Image.open(tmp_path / "ratios.png").convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0]) > 100
    # The curve rises with the share of visible patches: from below on the left to above on the right.
    columns = np.flatnonzero(blue[100:].any(axis=0))
    left, right = (np.flatnonzero(blue[100:, column]).mean() for column in columns[[2, -3]])
    assert len(columns) > 200 and left > right + 50
