"""Rate and decay of every variable beside the formulas of the authors' code, and what a step makes of them."""

import re

import numpy as np
import pytest
from keras import Variable

from convnext import ConvNeXtV2
from experiments.config import FinetuneConfig
from experiments.optim.adamw import LayerwiseAdamW, make_adamw
from experiments.optim.param_groups import LayerDecay, rule_table
from experiments.training.schedule import Schedule
from tests.small_models import no_values


def authors_name(path):
    """The name of a variable in the authors' model, as far as their rules look at it."""
    path = path.removeprefix("classifier/")
    if path.startswith("stem/"):
        return "downsample_layers.0"
    if match := re.match(r"stage_(\d)/downsampling/", path):
        return f"downsample_layers.{match[1]}"
    if match := re.match(r"stage_(\d)/block_(\d+)/", path):
        return f"stages.{match[1]}.{match[2]}"
    assert path.startswith(("head_norm/", "head/")), path
    return "norm or head"


def authors_factor(path, depths, decay, kind):
    """https://github.com/facebookresearch/ConvNeXt-V2: optim_factory.py, and the values of main_finetune.py."""
    place, *numbers = authors_name(path).split(".")
    stage, block = (*map(int, numbers), 0, 0)[:2]
    last = sum(depths) if kind == "single" else 12
    if place == "norm or head":
        layer = last + 1
    elif kind == "single":
        layer = 1 + block
        for depth in depths[:stage]:
            layer += depth
    elif place == "downsample_layers":
        layer = {0: 0, 1: 2, 2: 3, 3: 12}[stage]
    else:
        layer = {0: 1, 1: 2, 2: 3 + block // 3, 3: 12}[stage]
    return decay ** (last + 1 - layer)


def authors_decay(variable):
    """Zero for one-dimensional variables, biases, gamma and beta (GRN's have one dimension that is not 1)."""
    name = variable.path.rsplit("/", 1)[1]
    return 0.0 if len(variable.shape) == 1 or name in ("bias", "gamma", "beta") else 0.05


@pytest.mark.parametrize(
    ("variant", "kind", "decay", "factors"),
    [
        ("base", "group", 0.6, 14),  # stem, 12 groups, head
        ("huge", "group", 0.75, 14),
        ("tiny", "single", 0.9, 19),  # 18 blocks, head
    ],
)
def test_rate_and_decay_of_every_variable_are_those_of_the_authors(variant, kind, decay, factors):
    with no_values():
        model = ConvNeXtV2.from_variant(variant, input_shape=(64, 64, 3), num_classes=10, name="classifier")
        rows = rule_table(model.trainable_variables, layer_decay=LayerDecay(model.depths, decay, kind))
    for row, variable in zip(rows, model.trainable_variables):
        assert row.path == variable.path
        expected = authors_factor(row.path, model.depths, decay, kind)
        assert row.rate_factor == pytest.approx(expected, rel=1e-12), row.path
        assert 0.05 * row.decays == authors_decay(variable), row.path
    assert len({round(row.rate_factor, 12) for row in rows}) == factors
    assert rows[0].rule == r"/kernel$"


@pytest.mark.parametrize(
    ("depths", "layers"),
    [
        # the last block's layer of each group, stage by stage
        ((2, 2, 6, 2), (1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5)),
        ((2, 2, 8, 2), (1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 6, 6)),
        ((3, 3, 9, 3), (1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6)),
        ((1, 4), (1, 2, 2, 2, 3)),
    ],
)
def test_groups_of_other_depths(depths, layers):
    decay = LayerDecay(depths, 0.5, "group")
    paths = [f"classifier/stage_{i}/block_{j}/norm/gamma" for i, depth in enumerate(depths) for j in range(depth)]
    assert tuple(decay.layer_of(path) for path in paths) == layers
    assert decay.num_layers == max(layers)
    assert decay.layer_of("classifier/stem/conv/kernel") == 0
    for stage in range(1, len(depths)):
        first = layers[sum(depths[:stage])]
        assert decay.layer_of(f"classifier/stage_{stage}/downsampling/conv/kernel") == first
    assert decay.factor("classifier/head/bias") == decay.factor("classifier/head_norm/gamma") == 1.0
    assert decay.factor("classifier/stem/norm/beta") == 0.5 ** (max(layers) + 1)


def test_a_variable_of_no_layer_raises():
    with pytest.raises(ValueError, match="No rule says to which layer decoder/pred/kernel belongs"):
        LayerDecay((1,), 0.9).layer_of("decoder/pred/kernel")


PATHS = ("stem/conv/kernel", "stage_0/block_1/norm/gamma", "stage_1/downsampling/conv/kernel", "head/kernel")


def numpy_adamw(value, gradients, rates, training, decays):
    """PyTorch's AdamW, https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html, in float64."""
    value, first, second = value.astype("float64"), 0.0, 0.0
    for step, (gradient, rate) in enumerate(zip(gradients, rates), 1):
        value = value * (1 - rate * training.weight_decay * decays)
        first = training.beta_1 * first + (1 - training.beta_1) * gradient
        second = training.beta_2 * second + (1 - training.beta_2) * gradient**2
        hat = first / (1 - training.beta_1**step)
        value = value - rate * hat / (np.sqrt(second / (1 - training.beta_2**step)) + 1e-8)
    return value


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_steps_move_every_variable_by_its_own_rate_and_decay(backend, monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: backend)
    training = FinetuneConfig(weight_decay=0.5, min_learning_rate=1e-3)
    plan = Schedule(steps_per_epoch=2, total_steps=4, warmup_steps=0, peak_learning_rate=0.1)
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(3, 2)).astype("float32") for _ in PATHS]
    gradients = rng.normal(size=(3, len(PATHS), 3, 2)).astype("float32")
    variables = [Variable(value) for value in values]
    for variable, path in zip(variables, PATHS):
        variable._path = path
    rules = rule_table(variables, layer_decay=LayerDecay((2, 2), 0.5))
    optimizer = make_adamw(variables, training, plan, rules)
    assert isinstance(optimizer, LayerwiseAdamW)
    assert (type(optimizer) is LayerwiseAdamW) == (backend == "jax")
    for row in gradients:
        optimizer.apply(list(row), variables)
    rates = [1e-3 + (0.1 - 1e-3) * 0.5 * (1 + np.cos(np.pi * step / 4)) for step in range(3)]
    for i, (layer, variable) in enumerate(zip((1, 2, 3, 5), variables)):
        own = [rate * 0.5 ** (5 - layer) for rate in rates]
        expected = numpy_adamw(values[i], gradients[:, i], own, training, PATHS[i].endswith("kernel"))
        np.testing.assert_allclose(np.asarray(variable.value), expected, atol=2e-6, err_msg=PATHS[i])
