"""Figures of rounds."""

import statistics

import pytest

from experiments.benchmarks.statistics import speed_ratios, summarize


def test_a_summary_has_the_median_and_the_spread():
    values = [5.0, 1.0, 4.0, 2.0, 9.0, 3.0]
    summary = summarize(values)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    assert summary == pytest.approx(
        {"median": median, "smallest": 1.0, "largest": 9.0, "lower_quartile": lower, "upper_quartile": upper}
    )


def test_contenders_are_compared_within_rounds():
    # b takes three times as long in every round, whatever the load: 10 / 3 = 30 / 9 would come of other pairings.
    ratios = speed_ratios({"a": [1.0, 10.0, 3.0], "b": [3.0, 30.0, 9.0], "c": [2.0, 5.0, 3.0]})
    assert list(ratios) == ["a/b", "a/c", "b/c"]
    assert ratios["a/b"]["rounds"] == [3.0, 3.0, 3.0]
    assert ratios["a/b"]["smallest"] == ratios["a/b"]["median"] == ratios["a/b"]["largest"] == 3.0
    assert ratios["a/c"]["rounds"] == [2.0, 0.5, 1.0]
    assert ratios["a/c"]["median"] == 1.0
    assert (ratios["a/c"]["smallest"], ratios["a/c"]["largest"]) == (0.5, 2.0)


def test_one_contender_is_compared_with_nobody():
    assert speed_ratios({"a": [1.0, 2.0]}) == {}
