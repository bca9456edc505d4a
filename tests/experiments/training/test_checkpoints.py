"""Checkpoints: what they hold, what happens to damaged ones, and what a run starts from."""

import re

import keras
import numpy as np
import pytest

from convnext.convnext_v2 import ConvNeXtV2
from experiments.errors import RunError, UserError
from experiments.training.checkpoints import Checkpoints, check_pretrained, choose_start
from tests.experiments.tiny import Lines

INPUT = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


def make_state(workdir, keep=3, seed=0):
    """A model with a generator of random numbers, its optimizer and their checkpoints."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense"), keras.layers.Dropout(0.5)])
    model.set_weights([np.full((3, 2), seed, "float32"), np.zeros(2, "float32")])
    optimizer = keras.optimizers.AdamW(0.1)
    optimizer.build(model.trainable_variables)
    return model, optimizer, Checkpoints(workdir, model, optimizer, keep)


def advance(model, optimizer):
    """A step that changes all that a checkpoint has to hold."""
    model(INPUT, training=True)
    optimizer.apply([np.ones((3, 2), "float32"), np.full(2, 0.5, "float32")], model.trainable_variables)


def state_of(model, optimizer):
    return [np.asarray(variable.value) for variable in (*model.variables, *optimizer.variables)]


def assert_same(actual, expected):
    assert len(actual) == len(expected) > 6
    for one, other in zip(actual, expected):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def states(tmp_path):
    """`{step: state}` of three checkpoints in `tmp_path`."""
    model, optimizer, checkpoints = make_state(tmp_path)
    states = {}
    for step in (2, 4, 6):
        advance(model, optimizer)
        checkpoints.save(step)
        states[step] = state_of(model, optimizer)
    return states


def damage(workdir, step, how):
    path = workdir / "checkpoints" / f"ckpt-{step}.data-00000-of-00001"
    content = path.read_bytes()
    if how == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped bytes":
        path.write_bytes(bytes(255 - byte for byte in content))
    elif how == "gone":
        path.unlink()
    else:
        (workdir / "checkpoints" / f"ckpt-{step}.index").write_bytes(b"no index")


HOW = ["cut short", "empty", "flipped bytes", "gone", "index"]


def test_all_of_the_state_comes_back(tmp_path, states):
    model, optimizer, checkpoints = make_state(tmp_path, seed=9)
    assert checkpoints.restore() == (6, [])
    assert_same(state_of(model, optimizer), states[6])
    changing = [not np.array_equal(one, other) for one, other in zip(states[2], states[6])]
    assert sum(changing) >= 7  # kernel, bias, generator, iterations, two moments each


def test_without_checkpoints_nothing_changes(tmp_path):
    model, optimizer, checkpoints = make_state(tmp_path, seed=9)
    before = state_of(model, optimizer)
    assert checkpoints.restore() == (0, []) and checkpoints.latest is None
    assert_same(state_of(model, optimizer), before)


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, states, how):
    damage(tmp_path, 6, how)
    model, optimizer, checkpoints = make_state(tmp_path, seed=9)
    lines = Lines()
    assert choose_start(checkpoints, model, "", lines) == 4
    assert_same(state_of(model, optimizer), states[4])
    assert lines == [
        f"checkpoint {tmp_path / 'checkpoints' / 'ckpt-6'} is damaged: falling back to the one before",
        "  starts from   its own checkpoint of step 4",
    ]


def test_a_run_that_fell_back_saves_over_the_damaged_checkpoint(tmp_path, states):
    damage(tmp_path, 6, "cut short")
    model, optimizer, checkpoints = make_state(tmp_path, seed=9)
    checkpoints.restore()
    advance(model, optimizer)
    checkpoints.save(6)
    model, optimizer, checkpoints = make_state(tmp_path, seed=9)
    assert checkpoints.restore() == (6, [])
    np.testing.assert_array_equal(state_of(model, optimizer)[0], states[6][0])


@pytest.mark.parametrize("how", HOW)
def test_if_all_are_damaged_the_run_fails(tmp_path, states, how):
    for step in states:
        damage(tmp_path, step, how)
    _, _, checkpoints = make_state(tmp_path)
    with pytest.raises(RunError, match="No checkpoint can be read: .*ckpt-6.*ckpt-4.*ckpt-2. Name another --workdir"):
        checkpoints.restore()


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_checkpoints_are_kept(tmp_path, keep):
    model, optimizer, checkpoints = make_state(tmp_path, keep=keep)
    for step in (1, 2, 3):
        checkpoints.save(step)
    found = sorted(path.stem for path in (tmp_path / "checkpoints").glob("*.index"))
    assert found == [f"ckpt-{step}" for step in (1, 2, 3)][-keep:]
    assert checkpoints.latest.endswith("ckpt-3")


# What a run starts from: its own checkpoint, then pretrained weights, then random ones.


def encoder(value):
    model = ConvNeXtV2((1,), (4,), input_shape=(8, 8, 1), include_top=False, name="encoder")
    model.set_weights([np.full(weight.shape, value, "float32") for weight in model.get_weights()])
    return model


@pytest.mark.parametrize(
    ("own", "pretrained", "step", "value", "line"),
    [
        (True, True, 5, 3.0, "  starts from   its own checkpoint of step 5"),
        (True, False, 5, 3.0, "  starts from   its own checkpoint of step 5"),
        (False, True, 0, 2.0, "  starts from   {}: {} variables loaded"),
        (False, False, 0, 1.0, "  starts from   random weights"),
    ],
)
def test_what_a_run_starts_from(tmp_path, own, pretrained, step, value, line):
    encoder(2.0).save(tmp_path / "encoder.keras")

    def checkpoints_of(model):
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(model.trainable_variables)
        return Checkpoints(tmp_path, model, optimizer, 1)

    if own:
        checkpoints_of(encoder(3.0)).save(5)
    model, lines = encoder(1.0), Lines()
    source = str(tmp_path / "encoder.keras") if pretrained else ""
    assert choose_start(checkpoints_of(model), model, source, lines) == step
    assert all((weight == value).all() for weight in model.get_weights())
    assert lines == [line.format(source, len(model.weights))]


def test_pretrained_weights_that_do_not_fit_are_refused(tmp_path):
    encoder(2.0).save(tmp_path / "encoder.keras")
    model = ConvNeXtV2((1,), (6,), input_shape=(8, 8, 1), include_top=False)
    _, _, checkpoints = make_state(tmp_path / "run")
    message = f"pretrained={tmp_path}: {tmp_path / 'encoder.keras'} does not fit the model (0 of "
    with pytest.raises(UserError, match=re.escape(message)):
        choose_start(checkpoints, model, str(tmp_path), Lines())


def test_weights_that_are_gone_matter_to_a_run_without_a_checkpoint_alone(tmp_path):
    gone = str(tmp_path / "gone")
    _, _, checkpoints = make_state(tmp_path / "run")
    with pytest.raises(UserError, match=re.escape(f"pretrained={gone}: There is no {gone}")):
        check_pretrained(gone, tmp_path / "run")
    checkpoints.save(3)
    check_pretrained(gone, tmp_path / "run")
