"""The load of others is theirs, and not one's own."""

import pathlib
import time

import pytest

from experiments.benchmarks import load


@pytest.mark.parametrize(("own", "cores"), [(0.0, 3.0), (2.0, 2.0), (6.0, 0.0), (6.01, 0.0)])
def test_ones_own_work_is_left_out(monkeypatch, own, cores):
    # In two seconds the processors worked for six.
    monkeypatch.setattr(load, "_busy_seconds", iter([10.0, 16.0]).__next__)
    monkeypatch.setattr(load.time, "process_time", iter([1.0, 1.0 + own]).__next__)
    monkeypatch.setattr(load.time, "perf_counter", iter([5.0, 7.0]).__next__)
    assert load.OthersLoad().cores() == pytest.approx(cores)


@pytest.mark.parametrize("known", [pathlib.Path("/proc/stat").exists()])
def test_work_shows_in_the_seconds_of_the_system(known):
    before, start = load._busy_seconds(), time.process_time()
    while time.process_time() - start < 0.3:
        sum(range(1000))
    assert load._busy_seconds() - before >= 0.25 if known else before is None
