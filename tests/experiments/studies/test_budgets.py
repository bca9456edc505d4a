"""The choice of a rate, on runs whose figures are written by hand."""

import pytest

from experiments.studies.budgets import LADDER, Budget, Length, best_rate, is_at_edge, rate_beyond, try_rates
from experiments.studies.fewer_labels import FewerLabels
from experiments.training.schedule import Schedule
from tests.experiments.tiny import tiny_config

RATES = (3e-4, 1e-3, 3e-3)
LENGTH = Length("100", 40, 20, rates=RATES)


def search(top1_of, more_rates=2):
    """Tries rates whose figures are known; returns what was tried, and the rates in the order of their runs."""
    order = []

    def result_of(rate):
        order.append(rate)
        return {"validation_top1": top1_of[rate]} if rate in top1_of else None

    return try_rates(result_of, lambda rate: rate, RATES, more_rates), order


def finetuning(root, length=LENGTH, seed=0, rate=1e-3, choosing=False):
    study = FewerLabels(root, tiny_config(), Budget(2, (length,)), (0, 1), 1000)
    return study.finetuning("folder", study.config, seed, length, rate, None, choosing)


def test_the_rate_with_the_highest_figure_is_chosen_and_the_lowest_of_equals():
    assert best_rate({1e-3: 80.0, 3e-3: 82.0, 1e-2: 81.0}) == 3e-3
    assert best_rate({1e-3: 80.0, 3e-3: 82.0, 1e-2: 82.0}) == 3e-3
    assert not is_at_edge({1e-3: 80.0, 3e-3: 82.0, 1e-2: 82.0})


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
    assert rate_beyond(tried) == beyond


def test_a_search_ends_within_its_rates():
    top1_of = {3e-4: 70.0, 1e-3: 72.0, 3e-3: 71.0}
    assert search(top1_of) == (top1_of, [3e-4, 1e-3, 3e-3])
    assert search({3e-4: 70.0, 3e-3: 71.0}) == (None, [3e-4, 1e-3, 3e-3])  # one is open


def test_a_search_goes_on_beyond_an_edge_as_often_as_it_may():
    top1_of = {3e-4: 70.0, 1e-3: 72.0, 3e-3: 73.0, 1e-2: 74.0, 3e-2: 75.0}
    assert search(top1_of) == (top1_of, [3e-4, 1e-3, 3e-3, 1e-2, 3e-2])
    tried, order = search(top1_of, more_rates=1)
    assert order == [3e-4, 1e-3, 3e-3, 1e-2] and best_rate(tried) == 1e-2 and is_at_edge(tried)
    tried, order = search({**top1_of, 1e-2: 72.5})
    assert order == [3e-4, 1e-3, 3e-3, 1e-2] and best_rate(tried) == 3e-3 and not is_at_edge(tried)
    assert search({3e-4: 73.0, 1e-3: 72.0, 3e-3: 70.0, 1e-4: 71.0})[1] == [3e-4, 1e-3, 3e-3, 1e-4]


def test_a_run_has_the_rate_labels_and_length_of_its_arm_and_leaves_the_test_images_alone(tmp_path):
    trial = finetuning(tmp_path, rate=3e-4, choosing=True)
    training = trial.config.finetune
    plan = Schedule.of(training, 100)
    assert plan.peak_learning_rate == pytest.approx(3e-4)
    assert (plan.total_steps, plan.warmup_steps) == (40, 4)
    assert (training.labels, training.batch_size, training.report_test) == ("100", 20, False)
    assert trial.length == (40, 20)


def test_the_run_of_a_rate_is_the_final_one_unless_shorter_runs_choose(tmp_path):
    short = Length("100", 40, 20, choice_steps=10, rates=RATES)
    names = {
        (length.choice_steps, seed, choosing): finetuning(tmp_path, length, seed, 1e-3, choosing).name
        for length in (LENGTH, short)
        for seed in (0, 1)
        for choosing in (True, False)
    }
    assert names.pop((10, 0, True)) == names.pop((10, 1, True)) == "folder/short_rate_0.001"
    assert set(names.values()) == {"folder/rate_0.001"}
    runs = [finetuning(tmp_path, short, choosing=choosing) for choosing in (True, False)]
    assert [run.config.finetune.steps for run in runs] == [10, 40]


def test_before_the_choice_a_run_has_no_configuration_and_counts_once(tmp_path):
    runs = [finetuning(tmp_path, seed=seed, rate=None) for seed in (0, 1)]
    assert [(run.name, run.config, run.is_due, run.length) for run in runs] == [
        ("folder/chosen_rate", None, False, (0, 0)),
        ("folder/chosen_rate", None, False, (40, 20)),
    ]
