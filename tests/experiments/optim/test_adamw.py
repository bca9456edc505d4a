"""AdamW beside an independent version, and which variables decay."""

import numpy as np
import pytest
from keras import Variable

from experiments.config import FinetuneConfig, PretrainConfig
from experiments.models import make_classifier, make_fcmae
from experiments.optim.adamw import make_adamw
from experiments.optim.param_groups import rule_table
from experiments.training.schedule import Schedule
from tests.experiments.optim.test_schedules import reference as rate_at
from tests.experiments.tiny import TWO_STAGES, tiny_config

CONFIG = tiny_config(model=TWO_STAGES)


def reference(values, gradients, decays, rates, training):
    """Loshchilov & Hutter (https://arxiv.org/abs/1711.05101), algorithm 2, in float64."""
    values = [value.astype("float64") for value in values]
    first, second = [0.0 * value for value in values], [0.0 * value for value in values]
    for step, (rate, row) in enumerate(zip(rates, gradients), 1):
        for i, gradient in enumerate(row):
            first[i] = training.beta_1 * first[i] + (1 - training.beta_1) * gradient
            second[i] = training.beta_2 * second[i] + (1 - training.beta_2) * gradient**2
            corrected = first[i] / (1 - training.beta_1**step)
            scale = np.sqrt(second[i] / (1 - training.beta_2**step)) + 1e-8
            decay = training.weight_decay * values[i] if decays[i] else 0.0
            values[i] = values[i] - rate * (corrected / scale + decay)
    return values


@pytest.mark.parametrize("size", [1.0, 1e-8])  # of gradients; the smaller one is that of epsilon
@pytest.mark.parametrize(
    "training",
    [
        PretrainConfig(weight_decay=0.3, min_learning_rate=1e-3),
        FinetuneConfig(weight_decay=0.5, beta_1=0.8, beta_2=0.9),
        PretrainConfig(weight_decay=0.0),
    ],
)
def test_adamw_equals_the_reference_over_several_steps(training, size):
    rng = np.random.default_rng(0)
    plan = Schedule(steps_per_epoch=4, total_steps=12, warmup_steps=3, peak_learning_rate=0.02)
    names, shapes = ("kernel", "bias", "gamma"), ((3, 4), (4,), (1, 4))
    start = [rng.normal(size=shape).astype("float32") for shape in shapes]
    variables = [Variable(value, name=name) for value, name in zip(start, names)]
    for variable, name in zip(variables, names):
        variable._path = f"layer/{name}"
    optimizer = make_adamw(variables, training, plan, rule_table(variables))
    gradients = [[rng.normal(0.0, size, shape).astype("float32") for shape in shapes] for _ in range(12)]
    for row in gradients:
        optimizer.apply([np.array(gradient) for gradient in row], variables)
    rates = [rate_at(step, 0.02, 12, 3, training.min_learning_rate) for step in range(12)]
    expected = reference(start, gradients, (True, False, False), rates, training)
    for variable, value in zip(variables, expected):
        np.testing.assert_allclose(np.asarray(variable.value), value, atol=2e-6)


@pytest.fixture(scope="module", params=["fcmae", "classifier"])
def model(request):
    return make_fcmae(CONFIG) if request.param == "fcmae" else make_classifier(CONFIG, 10)


def test_every_variable_has_a_row_and_only_kernels_decay(model):
    rows = rule_table(model.trainable_variables)
    assert [row.path for row in rows] == [variable.path for variable in model.trainable_variables]
    for row, variable in zip(rows, model.trainable_variables):
        assert row.shape == tuple(variable.shape)
        assert row.decays == row.path.endswith("/kernel"), row.path
        assert row.decays == (len([side for side in row.shape if side > 1]) > 1), row.path
    spared = {row.path.rsplit("/", 1)[1] for row in rows if not row.decays}
    assert spared == {"bias", "gamma", "beta"} | ({"mask_token"} if model.name == "fcmae" else set())


def test_a_step_without_gradient_shrinks_the_kernels_alone(model):
    training = PretrainConfig(weight_decay=0.5)
    plan = Schedule(steps_per_epoch=1, total_steps=10**9, warmup_steps=0, peak_learning_rate=0.1)
    variables = model.trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape, "float32"))
    optimizer = make_adamw(variables, training, plan, rule_table(variables))
    optimizer.apply([np.zeros(variable.shape, "float32") for variable in variables], variables)
    for variable in variables:
        expected = 1.0 - 0.1 * 0.5 if variable.path.endswith("/kernel") else 1.0
        np.testing.assert_allclose(np.asarray(variable.value), expected, atol=1e-6, err_msg=variable.path)


def test_a_variable_that_no_rule_matches_raises():
    variable = Variable(np.zeros(3, "float32"), name="temperature")
    with pytest.raises(ValueError, match="No rule says how temperature is optimised"):
        rule_table([variable])


def test_the_first_rule_that_matches_counts(monkeypatch):
    variable = Variable(np.zeros(3, "float32"), name="kernel")
    variable._path = "head/kernel"
    rules = (r"^head/", False), (r"/kernel$", True)
    for ordered, decays in ((rules, False), (rules[::-1], True)):
        monkeypatch.setattr("experiments.optim.param_groups.RULES", ordered)
        assert [row.decays for row in rule_table([variable])] == [decays]
