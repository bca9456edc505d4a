"""Steps, rates and the evenly spaced events of a run."""

import re

import pytest

from experiments.config import FinetuneConfig, PretrainConfig
from experiments.errors import UserError
from experiments.training.callbacks import evenly_spaced
from experiments.training.distributed.strategy import check_batch
from experiments.training.schedule import Schedule


@pytest.mark.parametrize(
    ("training", "images", "plan"),
    [
        (PretrainConfig(epochs=10, batch_size=128, base_learning_rate=1e-3, warmup_epochs=2), 1078,
         Schedule(8, 80, 16, 1e-3 * 128 / 256)),
        (PretrainConfig(epochs=10, batch_size=100, warmup_epochs=0.5), 1000, Schedule(10, 100, 5, 1.5e-4 * 100 / 256)),
        (PretrainConfig(epochs=10, steps=33, batch_size=512, warmup_epochs=0), 1024, Schedule(2, 33, 0, 3e-4)),
        (FinetuneConfig(epochs=3, batch_size=64, base_learning_rate=0.25, warmup_epochs=0), 64,
         Schedule(1, 3, 0, 0.0625)),
    ],
)  # fmt: skip
def test_the_plan_follows_from_configuration_and_data(training, images, plan):
    found = Schedule.of(training, images)
    assert (found.steps_per_epoch, found.total_steps, found.warmup_steps) == (
        plan.steps_per_epoch, plan.total_steps, plan.warmup_steps,
    )  # fmt: skip
    assert found.peak_learning_rate == pytest.approx(plan.peak_learning_rate)


@pytest.mark.parametrize("training", [PretrainConfig(batch_size=257), FinetuneConfig(batch_size=257)])
def test_a_batch_larger_than_the_data_is_refused(training):
    section = training.section
    message = f"{section}.batch_size=257 is more than the 256 training images: use --config.{section}.batch_size=256"
    with pytest.raises(UserError, match=re.escape(message)):
        Schedule.of(training, 256)


@pytest.mark.parametrize(
    ("arguments", "steps", "total"),
    [
        ({"epochs": 5, "warmup_epochs": 5}, 20, 20),
        ({"epochs": 5, "warmup_epochs": 8}, 32, 20),
        ({"epochs": 5, "steps": 4, "warmup_epochs": 1}, 4, 4),
    ],
)
def test_a_warmup_as_long_as_the_run_is_refused(arguments, steps, total):
    message = (
        f"finetune.warmup_epochs={arguments['warmup_epochs']} ({steps} steps) takes up the whole run of {total} steps"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        Schedule.of(FinetuneConfig(batch_size=16, **arguments), 64)


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "replicas", "nearest"),
    [(16, 1, 3, "15 or 18"), (18, 2, 2, "16 or 20"), (2, 1, 4, "4"), (16, 4, 2, None), (12, 1, 3, None)],
)
def test_a_batch_that_does_not_divide_over_the_devices_names_the_nearest(batch_size, accumulation, replicas, nearest):
    training = PretrainConfig(batch_size=batch_size, accumulation_steps=accumulation)
    if nearest is None:
        assert check_batch(training, replicas) is None
        return
    message = (
        f"pretrain.batch_size={batch_size} is not divisible by {replicas} devices x {accumulation} accumulation steps; "
        f"use {nearest}."
    )
    with pytest.raises(UserError, match=re.escape(message)):
        check_batch(training, replicas)


@pytest.mark.parametrize(
    ("count", "per_epoch", "total", "steps"),
    [
        (4, 1, 20, [5, 10, 15, 20]),
        (3, 2, 20, [7, 13, 20]),
        (1, 10, 20, [20]),
        (0, 1, 20, []),
        (10, 5, 20, [5, 10, 15, 20]),  # at most one an epoch
        (10, 50, 20, [20]),
    ],
)
def test_events_are_spread_evenly_and_the_last_is_the_end(count, per_epoch, total, steps):
    assert evenly_spaced(count, Schedule(per_epoch, total, 0, 0.1)) == steps
