"""The learning rate at every step, beside the formula of the authors' code."""

import math

import pytest

from experiments.config import PretrainConfig
from experiments.optim.adamw import learning_rate_schedule
from experiments.training.schedule import Schedule


def schedule_of(peak, total, warmup, final):
    return learning_rate_schedule(PretrainConfig(min_learning_rate=final), Schedule(1, total, warmup, peak))


def reference(step, peak, total, warmup, final):
    """`adjust_learning_rate` of https://github.com/facebookresearch/ConvNeXt-V2/blob/main/utils.py, step by step."""
    if step < warmup:
        return peak * step / warmup
    return final + (peak - final) * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@pytest.mark.parametrize(
    ("peak", "total", "warmup", "final"),
    [(1.5e-4, 50, 10, 0.0), (1e-3, 50, 10, 1e-5), (1e-3, 20, 0, 0.0), (1e-3, 20, 0, 1e-4), (0.1, 7, 6, 0.01)],
)
def test_the_rate_equals_the_formula_at_every_step(peak, total, warmup, final):
    schedule = schedule_of(peak, total, warmup, final)
    for step in range(total + 1):
        expected = reference(step, peak, total, warmup, final)
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5, abs=1e-6 * peak), step


def test_the_rate_reaches_its_peak_after_the_warmup_and_its_final_value_at_the_end():
    schedule = schedule_of(0.2, 40, 8, 0.05)
    rates = [float(schedule(step)) for step in range(41)]
    assert rates[0] == 0.0
    assert rates.index(max(rates)) == 8 and rates[8] == pytest.approx(0.2)
    assert rates[40] == pytest.approx(0.05)
    assert float(schedule(1000)) == pytest.approx(0.05)
