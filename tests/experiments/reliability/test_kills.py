"""The kills themselves: on a stand-in for training that starts at once."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments.errors import RunError, UserError
from experiments.reliability import soak
from experiments.reliability.damage import KINDS, complete_steps, damage
from experiments.reliability.kills import SAVING, STEPPING, STOPPING, draw_kills
from experiments.reliability.process import last_step
from experiments.reliability.settings import SoakSettings
from tests.experiments.tiny import tiny_config

STEPS, EVERY = 80, 5
SETTINGS = SoakSettings(kills=9, kills_while_saving=4, damages=2)


def fake(*faults):
    """A function that starts the stand-in in place of a command."""
    program = pathlib.Path(__file__).with_name("fake_training.py")

    def start(task, flags, output):
        workdir = flags[-1].removeprefix("--workdir=")
        command = [sys.executable, "-S", program, workdir, str(STEPS), str(EVERY), *faults]
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    return start


@pytest.fixture
def soak_of(tmp_path, monkeypatch):
    """Function of the faults of a run, to what the soak test finds; weights are not compared."""
    monkeypatch.setattr(soak, "compare_runs", lambda one, other: ({}, []))

    def run(*faults, settings=SETTINGS):
        config = tiny_config(checkpoint_every=EVERY)
        return soak.run(config, settings, tmp_path / "soak", fake(*faults), say=lambda line: None)

    return run


def test_kills_come_as_planned_and_a_good_run_stands_them(soak_of, tmp_path):
    results = soak_of()
    assert results["findings"] == [] and results["steps"] == STEPS
    records = results["kills"]
    saving = [record for record in records if record["moment"] in (SAVING, STOPPING)]
    assert len(records) == SETTINGS.kills and len(saving) == SETTINGS.kills_while_saving
    assert all("ckpt-" in record["under_way"] for record in saving)
    assert sum(record["damage"] is not None for record in records) == SETTINGS.damages
    assert records[-1]["step"] == STEPS == last_step(tmp_path / "soak" / "killed" / "metrics.jsonl")
    for before, after in zip(records, records[1:]):
        assert after["resumed_from"] <= before["step"]
        assert before["damage"] is None or f"ckpt-{after['resumed_from']}." not in before["damage"]


def test_a_run_that_begins_anew_is_found_out(soak_of):
    settings = SoakSettings(kills=3, kills_while_saving=0, damages=0)
    findings = soak_of("forgetful", settings=settings)["findings"]
    assert any("went on from step 0, with a sound checkpoint of step" in finding for finding in findings)


def test_a_run_that_says_nothing_of_damage_is_found_out(soak_of):
    settings = SoakSettings(kills=4, kills_while_saving=0, damages=2)
    findings = soak_of("silent", settings=settings)["findings"]
    assert len(findings) == 2 and all("said nothing of ckpt-" in finding for finding in findings)


def test_a_run_that_fails_ends_the_test_with_what_it_wrote(tmp_path):
    def start(task, flags, output):
        return subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit('no memory')"], stderr=output)

    with pytest.raises(RunError, match="ended with code 1: no memory"):
        soak.run(tiny_config(), SETTINGS, tmp_path / "soak", start, say=lambda line: None)


def test_drawn_kills_rise_to_the_end_of_the_run():
    kills = draw_kills(SoakSettings(), total_steps=200, checkpoint_every=5)
    steps = [kill.step for kill in kills]
    assert len(kills) == 20 and steps == sorted(set(steps)) and steps[-1] == 200
    assert sum(kill.moment in (SAVING, STOPPING) for kill in kills) == 5
    damaging = [kill for kill in kills if kill.damages]
    assert len(damaging) == 3 and all(kill.step > 10 and kill.moment not in (SAVING, STOPPING) for kill in damaging)
    assert kills[-1].moment == STEPPING
    assert kills == draw_kills(SoakSettings(), 200, 5) != draw_kills(SoakSettings(seed=1), 200, 5)


def test_a_run_too_short_for_its_kills_is_a_mistake():
    with pytest.raises(UserError, match="it takes 35 steps or more"):
        draw_kills(SoakSettings(), total_steps=34, checkpoint_every=5)
    with pytest.raises(UserError, match="kills=7 is too few, 8 the least"):
        SoakSettings(kills=7)
    with pytest.raises(UserError, match="kills=2 is too few, 3 the least"):
        SoakSettings(kills=2, kills_while_saving=2, damages=0)


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already: name a new folder"):
        soak.run(tiny_config(), SETTINGS, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_changes_one_file_and_persists_until_it_is_written_anew(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("experiments.reliability.damage.KINDS", {kind: KINDS[kind]})
    before = {tmp_path / f"ckpt-7{part}": bytes(range(200)) for part in (".data-00000-of-00001", ".index", ".sha256")}
    for path, content in before.items():
        path.write_bytes(content)
    assert complete_steps(tmp_path) == [7]
    done = damage(tmp_path, 7, np.random.default_rng(0))
    after = {path: path.read_bytes() if path.exists() else None for path in before}
    assert [path for path in before if after[path] != before[path]] == [done.file] and done.kind == kind
    assert done.persists
    done.file.write_bytes(before[done.file])
    assert not done.persists
