"""Runs that are killed and started again end as undisturbed ones, and memory does not grow.

The ordinary suite has a short run and the tests of the harness; `make soak` has all.
"""

import functools
import os

import numpy as np
import pytest

from tests.experiments.tiny import TWO_STAGES, tiny_config
from tests.soak import fake_training
from tests.soak.comparison import compare_runs
from tests.soak.kills import KINDS, SAVING, STARTING, STEPPING, STOPPING, damage, draw_kills, kill_and_resume
from tests.soak.memory import MIB, medians, sample
from tests.soak.process import Attempt, launch, write_preset

SEED = int(os.environ.get("SOAK_SEED", "0"))
LONG = pytest.mark.skipif(os.environ.get("LONG_TESTS") != "1", reason="minutes: make soak, or LONG_TESTS=1")
REGULARIZED = {"drop_path_rate": 0.3, "dropout_rate": 0.1, "randaugment_magnitude": 5, "mixup_alpha": 0.8}
FINETUNING = {"batch_size": 25, "warmup_epochs": 0.5, "ema_decay": 0.9, **REGULARIZED}
PRETRAINING = {"batch_size": 32, "warmup_epochs": 0.5, "evaluations": 1, "pictures": 1}
SMALL = {"depths": (1,), "dims": (16,), "stem_stride": 8, "decoder_dim": 16}
# Task, configuration, `{moment: number of kills}` beside one at the end, number of damaged checkpoints.
SHORT = (
    "pretrain",
    tiny_config(model={**SMALL, "dims": (4,)}, pretrain={"steps": 21}, checkpoint_every=3),
    {SAVING: 1, STARTING: 1},
    1,
)
RUNS = {
    "pretraining": (
        "pretrain",
        tiny_config(model=SMALL, pretrain={**PRETRAINING, "steps": 100}, checkpoint_every=4),
        {STARTING: 2, STEPPING: 12, SAVING: 3, STOPPING: 2},
        3,
    ),
    "fine-tuning": (
        "finetune",
        tiny_config(model=TWO_STAGES, finetune={**FINETUNING, "steps": 48, "evaluations": 4}, checkpoint_every=3),
        {STARTING: 1, STEPPING: 6, SAVING: 2, STOPPING: 1},
        2,
    ),
}
OFTEN = {"steps": 2000, "evaluations": 20}
MEMORY = {
    "pretrain": tiny_config(pretrain={**PRETRAINING, **OFTEN, "pictures": 20, "probe_every": 20}, log_every=10),
    "finetune": tiny_config(finetune={**FINETUNING, **OFTEN}, log_every=10),
}
GROWTH = 0.025  # of memory, in the second half of a run: 16 KiB a step of pretraining


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Function of a task and a configuration to the command and the workdir of a run that nothing happened to."""

    @functools.cache
    def run(task, config):
        folder = tmp_path_factory.mktemp(task)
        train = functools.partial(launch, task, write_preset(folder / "preset.py", config))
        with Attempt(train, folder / "run", folder / "run.log") as attempt:
            attempt.wait_for_end()
        return train, folder / "run"

    return run


def soak(undisturbed, folder, task, config, moments, damages, seed):
    """Kills a run, and compares what it ends with; returns what was compared."""
    train, right = undisturbed(task, config)
    random = np.random.default_rng(seed)
    kills = draw_kills(random, getattr(config, task).steps, config.checkpoint_every, moments, damages)
    records = kill_and_resume(train, folder / "killed", kills, random)
    compared, differences = compare_runs(right, folder / "killed")
    print(f"{len(records)} kills, compared: {compared}")
    assert differences == []
    return compared


def test_a_short_run_that_is_killed_and_damaged_ends_as_an_undisturbed_one(undisturbed, tmp_path):
    compared = soak(undisturbed, tmp_path, *SHORT, seed=0)
    assert compared["lines of metrics"] == 21 and compared["weights of saved models"] > 20
    assert compared["variables of the newest checkpoint"] > 50 and compared["files"] > 10


@LONG
@pytest.mark.parametrize("seed", [SEED, SEED + 1])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_killed_and_damaged_ends_as_an_undisturbed_one(undisturbed, tmp_path, name, seed):
    soak(undisturbed, tmp_path, *RUNS[name], seed)


@LONG
@pytest.mark.parametrize("task", MEMORY)
def test_memory_does_not_grow(tmp_path, task):
    train = functools.partial(launch, task, write_preset(tmp_path / "preset.py", MEMORY[task]))
    with Attempt(train, tmp_path / "run", tmp_path / "run.log") as attempt:
        *_, middle, _, _, _, last = medians(sample(attempt), parts=10)
    assert last < middle * (1 + GROWTH)


# The harness itself, on a stand-in for training.
FAKE = {STARTING: 1, STEPPING: 4, SAVING: 2, STOPPING: 2}


def kill_fake(folder, fault="", moments=FAKE, damages=2):
    random = np.random.default_rng(0)
    kills = draw_kills(random, fake_training.STEPS, fake_training.EVERY, moments, damages)
    return kill_and_resume(functools.partial(fake_training.train, fault=fault), folder / "killed", kills, random)


def test_kills_come_as_planned(tmp_path):
    records = kill_fake(tmp_path)
    saving, stopping = (
        [record[2] for record in records if record[0].moment == moment] for moment in (SAVING, STOPPING)
    )
    assert (len(records), len(saving), len(stopping)) == (10, 2, 2)
    # One that was asked to stop may have saved and ended before it could be halted.
    assert all("ckpt-" in under_way for under_way in [*saving, *filter(None, stopping)])
    assert sum(damaged is not None for *_, damaged in records) == 2
    steps = [step for _, step, *_ in records]
    assert steps[-1] == fake_training.STEPS
    assert all(step >= kill.step for kill, step, *_ in records if kill.moment != STARTING)


FAULTS = {
    "forgetful": r"attempt \d started from step 0, not \d+",
    "trusting": r"started from step \d+, not \d+",
    "silent": r"attempt \d printed nothing of ckpt-\d+\.[\w-]+, (bytes flipped|truncated|removed)",
    "failing": "The run ended with code 1 before the line .*: .*MemoryError: no memory",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_with_a_fault_is_found_out(tmp_path, fault):
    with pytest.raises(AssertionError, match="(?s)" + FAULTS[fault]):
        kill_fake(tmp_path, fault, {STEPPING: 3}, damages=2)


@pytest.mark.parametrize("fault", ["", "leaking"])
def test_memory_that_a_run_keeps_is_seen(tmp_path, fault):
    train = functools.partial(fake_training.train, fault=fault)
    with Attempt(train, tmp_path / "run", tmp_path / "run.log") as attempt:
        resident = sample(attempt, seconds=0.001)
    *_, before, after = medians(resident, parts=4)
    kept = fake_training.STEPS / 4 * fake_training.LEAK if fault else 0
    assert after - before == pytest.approx(kept, rel=0.25, abs=MIB / 4)


@pytest.mark.parametrize("name", RUNS)
def test_drawn_kills_rise_to_the_end_of_the_run(name):
    task, config, moments, damages = RUNS[name]
    steps = getattr(config, task).steps
    draw = functools.partial(draw_kills, total_steps=steps, checkpoint_every=config.checkpoint_every, moments=moments)
    kills = draw(np.random.default_rng(0), damages=damages)
    drawn = [kill.step for kill in kills]
    assert len(kills) == sum(moments.values()) + 1 and drawn == sorted(set(drawn)) and drawn[-1] == steps
    assert {m: sum(kill.moment == m for kill in kills[:-1]) for m in moments} == moments
    damaging = [kill for kill in kills if kill.damages]
    assert len(damaging) == damages and all(kill.moment in (STEPPING, STARTING) for kill in damaging)
    assert kills == draw(np.random.default_rng(0), damages=damages) != draw(np.random.default_rng(1), damages=damages)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_changes_one_file_until_it_is_written_anew(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("tests.soak.kills.KINDS", {kind: KINDS[kind]})
    files = fake_training.CheckpointFiles(tmp_path)
    files.folder.mkdir()
    fake_training.save(files, 10)
    before = {path: path.read_bytes() for path in files.folder.iterdir()}
    done = damage(files, 10, np.random.default_rng(0))
    after = {path: path.read_bytes() if path.exists() else None for path in before}
    assert [path for path in before if after[path] != before[path]] == [done.file]
    assert done.step == 10 and done.kind == kind and done.persists
    done.file.write_bytes(before[done.file])
    assert not done.persists
