"""Checkpoints with bytes changed anywhere: the very state of one is restored, or it is said that none can be."""

import shutil

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.errors import RunError
from experiments.training.checkpoint import Checkpoints
from tests.fuzz import damaged, fuzzed

STEPS = (2, 4)


class Run:
    """A small model, its optimizer and their checkpoints of two steps, of which there is a copy to damage."""

    def __init__(self, workdir):
        self.folder, self.pristine = workdir / "checkpoints", workdir / "pristine"
        self._model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        self._optimizer = keras.optimizers.AdamW(0.1)
        self._optimizer.build(self._model.trainable_variables)
        self.checkpoints = Checkpoints(workdir, self._model, self._optimizer, keep=len(STEPS))
        self.states = {0: None}
        for step in STEPS:
            self._optimizer.apply([np.full((3, 2), step, "float32"), np.ones(2, "float32")])
            self.checkpoints.save(step, window=f"after {step}")
            self.states[step] = self.state()
        shutil.copytree(self.folder, self.pristine)

    def state(self):
        """All that a checkpoint holds."""
        variables = (*self._model.variables, *self._optimizer.variables)
        return [self.checkpoints.window, *(np.asarray(variable.value).tolist() for variable in variables)]

    def spoil(self):
        """Makes the state one that nobody has saved; returns it."""
        for variable in (*self._model.variables, *self._optimizer.variables):
            variable.assign(np.full(variable.shape, 77))
        return self.state()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("run"))


@fuzzed(40)
@given(data=st.data())
def test_damage_is_found_wherever_it_is(run, data):
    shutil.rmtree(run.folder)
    shutil.copytree(run.pristine, run.folder)
    names = sorted(path.name for path in run.folder.iterdir())
    changed = set()
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)):
        before = (run.folder / name).read_bytes()
        after = data.draw(st.one_of(damaged(before), st.just(b""), st.none()))
        if after is None:
            (run.folder / name).unlink()
        else:
            (run.folder / name).write_bytes(after)
        if after != before:
            changed |= {step for step in STEPS if name.startswith(f"ckpt-{step}.")}
    whole = [step for step in STEPS if step not in changed]
    spoilt = run.spoil()
    try:
        step, notes = run.checkpoints.restore()
    except RunError as error:
        assert str(error).startswith("No checkpoint can be read: ") and not whole
        return
    assert run.state() == (run.states[step] or spoilt)
    # One that only its checksums' layout was changed of may be restored too: what they say still holds.
    assert step >= max(whole, default=0)
    for other in STEPS:
        if other > step and list(run.folder.glob(f"ckpt-{other}.*")):
            assert any(f"/ckpt-{other} is " in note for note in notes)
