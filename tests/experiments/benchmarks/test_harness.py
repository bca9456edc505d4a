"""Figures of rounds, the load of others, tables, and workers that fail."""

import pathlib
import statistics
import time

import pytest

from experiments.benchmarks import harness
from experiments.errors import RunError


def test_a_summary_has_the_median_and_the_spread():
    values = [5.0, 1.0, 4.0, 2.0, 9.0, 3.0]
    summary = harness.summarize(values)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    assert summary.pop("rounds") == values
    assert summary == pytest.approx(
        {"median": median, "smallest": 1.0, "largest": 9.0, "lower_quartile": lower, "upper_quartile": upper}
    )


def test_candidates_are_compared_within_rounds():
    # b takes three times as long in every round, whatever the load: 10 / 3 = 30 / 9 would come of other pairings.
    ratios = harness.speed_ratios({"a": [1.0, 10.0, 3.0], "b": [3.0, 30.0, 9.0], "c": [2.0, 5.0, 3.0]})
    assert list(ratios) == ["a/b", "a/c", "b/c"]
    assert ratios["a/b"]["rounds"] == [3.0, 3.0, 3.0]
    assert ratios["a/b"]["smallest"] == ratios["a/b"]["median"] == ratios["a/b"]["largest"] == 3.0
    assert ratios["a/c"]["rounds"] == [2.0, 0.5, 1.0]
    assert ratios["a/c"]["median"] == 1.0
    assert (ratios["a/c"]["smallest"], ratios["a/c"]["largest"]) == (0.5, 2.0)
    assert harness.speed_ratios({"a": [1.0, 2.0]}) == {}


@pytest.mark.parametrize(("own", "cores"), [(0.0, 3.0), (2.0, 2.0), (6.0, 0.0), (6.01, 0.0)])
def test_ones_own_work_is_left_out_of_the_load(monkeypatch, own, cores):
    # In two seconds the processors worked for six.
    monkeypatch.setattr(harness, "_busy_seconds", iter([10.0, 16.0]).__next__)
    monkeypatch.setattr(harness.time, "process_time", iter([1.0, 1.0 + own]).__next__)
    monkeypatch.setattr(harness.time, "perf_counter", iter([5.0, 7.0]).__next__)
    assert harness.OthersLoad().cores() == pytest.approx(cores)


@pytest.mark.parametrize("known", [pathlib.Path("/proc/stat").exists()])
def test_work_shows_in_the_seconds_of_the_system(known):
    before, start = harness._busy_seconds(), time.process_time()
    while time.process_time() - start < 0.3:
        sum(range(1000))
    assert harness._busy_seconds() - before >= 0.25 if known else before is None


def test_columns_are_as_wide_as_what_is_in_them():
    lines = harness.table_lines(("images/s", "x"), {"sparse": ["1.5", "10,000"], "a longer name": ["20.25", "3"]})
    assert lines == [
        "                 images/s       x",
        "  sparse              1.5  10,000",
        "  a longer name     20.25       3",
    ]


def test_a_worker_that_ends_before_its_time_ends_the_run(monkeypatch):
    monkeypatch.setattr(harness.sys, "executable", "false")
    with pytest.raises(RunError, match="The process of sparse ended with code 1."):
        harness.Worker("sparse", "any", {}, {})
