"""The watch over memory: it must see growth, and only growth."""

import pytest

from experiments.errors import UserError
from experiments.reliability import memory
from experiments.reliability.settings import MemorySettings
from tests.experiments.reliability.test_kills import fake
from tests.experiments.tiny import tiny_config


def watch(folder, *faults, from_step=40):
    """What the watch finds of a run of 80 steps."""
    settings = MemorySettings(from_step=from_step)
    return memory.run(tiny_config(), settings, folder, fake(*faults), say=lambda line: None)


def test_a_process_that_keeps_64_kib_a_step_is_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "SECONDS_BETWEEN_SAMPLES", 0.001)  # the steps of the fake are short
    results = watch(tmp_path / "memory", "leaking")
    (finding,) = results["findings"]
    assert finding.startswith("Memory grew by ") and " from step 40 to step 80, " in finding
    (first, before), *_, (last, after) = results["resident"]
    assert (first, last) == (40, 80)
    assert after - before == pytest.approx(40 * 65536, rel=0.25)
    assert results["growth"] == after / before - 1


def test_a_process_that_keeps_nothing_passes(tmp_path):
    results = watch(tmp_path / "memory")
    assert results["findings"] == [] and abs(results["growth"]) < 0.03


def test_a_run_that_ends_before_the_first_step_that_counts_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="The run has 80 steps: name a --from_step before its end"):
        watch(tmp_path / "memory", from_step=200)


def test_the_size_at_a_step_is_the_median_while_it_was_the_newest():
    samples = [(0, 1), (4, 10), (4, 30), (4, 20), (6, 50)]
    assert memory.resident_at(samples, 4) == memory.resident_at(samples, 5) == 20
    assert memory.resident_at(samples, 3) == 1 and memory.resident_at(samples, 9) == 50
