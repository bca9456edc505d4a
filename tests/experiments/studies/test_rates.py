"""The choice of a rate, on runs whose figures are written by hand."""

import pytest

from experiments.studies.budgets import LADDER, Length
from experiments.studies.rates import Arm, Choice, rate_beyond
from experiments.training.schedule import Schedule
from experiments.training.workdir import write_json
from tests.experiments.tiny import tiny_config


def arm_of(root, more_rates=2, **length):
    fixed = {"labels": "100", "steps": 40, "batch_size": 20, "rates": (3e-4, 1e-3, 3e-3)}
    length = Length(**{**fixed, **length})
    return Arm(root, length, more_rates, 100, "seed_{}".format, lambda seed: tiny_config(seed=seed))


def finish(arm, top1_of):
    """Writes summaries for what the arm searches, until it asks for no more; returns the rates in its order."""
    tried = []
    for trial in arm.searching():
        trial.folder.mkdir(parents=True)
        write_json(trial.folder / "summary.json", {"validation_top1": top1_of[trial.peak_rate]})
        tried.append(trial.peak_rate)
    return tried


def test_the_rate_with_the_highest_figure_is_chosen_and_the_lowest_of_equals():
    assert Choice({1e-3: 80.0, 3e-3: 82.0, 1e-2: 81.0}).rate == 3e-3
    assert Choice({1e-3: 80.0, 3e-3: 82.0, 1e-2: 82.0}).rate == 3e-3
    assert not Choice({1e-3: 80.0, 3e-3: 82.0, 1e-2: 82.0}).is_at_edge


@pytest.mark.parametrize(
    ("tried", "beyond"),
    [
        ({3e-4: 1.0, 1e-3: 2.0, 3e-3: 1.0}, None),
        ({3e-4: 1.0, 1e-3: 2.0, 3e-3: 3.0}, 1e-2),
        ({3e-4: 3.0, 1e-3: 2.0, 3e-3: 1.0}, 1e-4),
        ({LADDER[0]: 3.0, LADDER[1]: 2.0}, None),
        ({LADDER[-2]: 1.0, LADDER[-1]: 2.0}, None),
    ],
)
def test_the_rate_beyond_an_edge(tried, beyond):
    assert rate_beyond(Choice(tried)) == beyond


def test_a_search_ends_within_its_rates(tmp_path):
    arm = arm_of(tmp_path)
    assert arm.choice is None and arm.final(1).config is None
    assert finish(arm, {3e-4: 70.0, 1e-3: 72.0, 3e-3: 71.0}) == [3e-4, 1e-3, 3e-3]
    assert arm.choice == Choice({3e-4: 70.0, 1e-3: 72.0, 3e-3: 71.0})
    assert arm.final(0).name == "seed_0/rate_0.001" and arm.final(0).is_complete
    assert arm.final(1).name == "seed_1/rate_0.001" and not arm.final(1).is_complete


def test_a_search_goes_on_beyond_an_edge_as_often_as_it_may(tmp_path):
    top1_of = {3e-4: 70.0, 1e-3: 72.0, 3e-3: 73.0, 1e-2: 74.0, 3e-2: 75.0}
    assert finish(arm_of(tmp_path / "two"), top1_of) == [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
    one = arm_of(tmp_path / "one", more_rates=1)
    assert finish(one, top1_of) == [3e-4, 1e-3, 3e-3, 1e-2]
    assert one.choice.rate == 1e-2 and one.choice.is_at_edge
    within = arm_of(tmp_path / "within")
    assert finish(within, {**top1_of, 1e-2: 72.5}) == [3e-4, 1e-3, 3e-3, 1e-2]
    assert within.choice.rate == 3e-3 and not within.choice.is_at_edge


def test_a_run_has_the_rate_labels_and_length_of_its_arm_and_leaves_the_test_images_alone(tmp_path):
    trial = next(iter(arm_of(tmp_path).searching()))
    training = trial.config.finetune
    plan = Schedule.of(training, 100)
    assert plan.peak_learning_rate == pytest.approx(3e-4)
    assert (plan.total_steps, plan.warmup_steps) == (40, 4)
    assert (training.labels, training.batch_size, training.report_test) == ("100", 20, False)
    assert trial.images == 800


def test_shorter_runs_choose_where_that_is_asked_for_and_are_not_those_that_count(tmp_path):
    arm = arm_of(tmp_path, choice_steps=10)
    assert {trial.config.finetune.steps for trial in arm.searching()} == {10}
    finish(arm, {3e-4: 70.0, 1e-3: 72.0, 3e-3: 71.0})
    final = arm.final(0)
    assert final.name == "seed_0/rate_0.001" and final.config.finetune.steps == 40 and not final.is_complete
