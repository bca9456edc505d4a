"""Checkpoints: what they hold, what happens to damaged ones, and what a run starts from."""

import errno
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf

from convnext.convnext_v2 import ConvNeXtV2
from experiments.errors import RunError, UserError
from experiments.io import TEMPORARY
from experiments.training.checkpoint import CheckpointFiles, Checkpoints
from experiments.training.ema import AveragedWeights
from experiments.training.start import check_pretrained, choose_start
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
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "flipped bytes":
        path.write_bytes(bytes(255 - byte for byte in content))
    elif how == "one bit":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif how == "gone":
        path.unlink()
    elif how == "checksums":
        (workdir / "checkpoints" / f"ckpt-{step}.sha256").write_bytes(b"no checksum")
    else:
        (workdir / "checkpoints" / f"ckpt-{step}.index").write_bytes(b"no index")


# What is done to a checkpoint, and what is said of it.
DATA = "ckpt-{step}.data-00000-of-00001"
HOW = {
    "truncated": f"{DATA} does not match its checksum",
    "empty": f"{DATA} does not match its checksum",
    "flipped bytes": f"{DATA} does not match its checksum",
    "one bit": f"{DATA} does not match its checksum",
    "gone": f"{DATA} is missing",
    "index": "ckpt-{step}.index does not match its checksum",
    "checksums": "its checksums are damaged",
}


def test_all_of_the_state_comes_back(tmp_path, states):
    model, optimizer, checkpoints = make_state(tmp_path, seed=9)
    assert checkpoints.restore() == (6, [])
    assert_same(state_of(model, optimizer), states[6])
    changing = [not np.array_equal(one, other) for one, other in zip(states[2], states[6])]
    assert sum(changing) >= 7  # kernel, bias, generator, iterations, two moments each


def test_without_checkpoints_nothing_changes(tmp_path):
    model, optimizer, checkpoints = make_state(tmp_path, seed=9)
    before = state_of(model, optimizer)
    assert checkpoints.restore() == (0, []) and CheckpointFiles(tmp_path).latest is None
    assert_same(state_of(model, optimizer), before)


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, states, how):
    damage(tmp_path, 6, how)
    model, optimizer, checkpoints = make_state(tmp_path, seed=9)
    lines = Lines()
    assert choose_start(checkpoints, model, "", lines) == 4
    assert_same(state_of(model, optimizer), states[4])
    assert lines == [
        f"checkpoint {tmp_path / 'checkpoints' / 'ckpt-6'} is damaged ({HOW[how].format(step=6)}): "
        "using the previous one",
        "  starts from   its own checkpoint of step 4",
    ]


def test_a_run_that_fell_back_saves_over_the_damaged_checkpoint(tmp_path, states):
    damage(tmp_path, 6, "truncated")
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
    why = re.escape(HOW[how].format(step=2))
    message = rf"No checkpoint can be read: .*ckpt-6, .*ckpt-4, .*ckpt-2 \({why}\). Use another --workdir to start over"
    with pytest.raises(RunError, match=message):
        checkpoints.restore()


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_checkpoints_are_kept(tmp_path, keep):
    model, optimizer, checkpoints = make_state(tmp_path, keep=keep)
    for step in (1, 2, 3):
        checkpoints.save(step)
    found = sorted(path.stem for path in (tmp_path / "checkpoints").glob("*.index"))
    assert found == [f"ckpt-{step}" for step in (1, 2, 3)][-keep:]
    assert CheckpointFiles(tmp_path).latest.endswith("ckpt-3")


def names(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


def files_of(*steps):
    return sorted(f"ckpt-{step}.{part}" for step in steps for part in ("data-00000-of-00001", "index", "sha256"))


def test_sha256sum_agrees_with_the_checksums(tmp_path, states):
    folder = tmp_path / "checkpoints"
    for step in states:
        lines = (folder / f"ckpt-{step}.sha256").read_text().splitlines()
        assert [line.split()[1] for line in lines] == [f"ckpt-{step}.data-00000-of-00001", f"ckpt-{step}.index"]
        subprocess.run(["sha256sum", "--check", "--strict", "--quiet", f"ckpt-{step}.sha256"], cwd=folder, check=True)


def test_a_flipped_bit_anywhere_is_found(tmp_path, states):
    """TensorFlow's own checksums leave gaps: of the index, and of what it does not restore."""
    files = CheckpointFiles(tmp_path)
    rng = np.random.default_rng(0)
    for name in files_of(6):
        path = tmp_path / "checkpoints" / name
        content = path.read_bytes()
        for place in [0, len(content) - 1, *rng.integers(len(content), size=20)]:
            flipped = bytearray(content)
            flipped[place] ^= 1 << rng.integers(8)
            path.write_bytes(flipped)
            assert files.damage(6), f"bit of byte {place} of {name}"
        path.write_bytes(content)
    assert files.damage(6) == ""


def leave_unfinished(workdir, step):
    """What a kill leaves during and after TensorFlow's part, and while the checksums are written."""
    folder = workdir / "checkpoints"
    for name in (f"ckpt-{step}.index", f"ckpt-{step}.data-00000-of-00001"):
        shutil.copy(folder / name.replace(str(step), "6"), folder / name)
    (folder / f"{TEMPORARY}ckpt-{step}.sha256").write_text("0123")
    (folder / f"ckpt-{step + 1}_temp").mkdir()
    (folder / f"ckpt-{step + 1}_temp" / "part-00000-of-00001.data-00000-of-00001.tempstate1").write_bytes(b"part")


def test_an_unfinished_checkpoint_is_left_out_and_goes_with_the_next(tmp_path, states):
    leave_unfinished(tmp_path, 8)
    model, optimizer, checkpoints = make_state(tmp_path, seed=9)
    folder = tmp_path / "checkpoints"
    step, notes = checkpoints.restore()
    assert step == 6
    assert notes == [f"checkpoint {folder / f'ckpt-{number}'} is incomplete: ignored" for number in (8, 9)]
    assert_same(state_of(model, optimizer), states[6])
    assert CheckpointFiles(tmp_path).latest == str(folder / "ckpt-6")
    checkpoints.save(7)
    assert names(tmp_path) == files_of(4, 6, 7)


def test_a_run_killed_in_its_first_checkpoint_starts_anew(tmp_path, states):
    for path in (tmp_path / "checkpoints").glob("*.sha256"):
        path.unlink()
    _, _, checkpoints = make_state(tmp_path)
    step, notes = checkpoints.restore()
    assert (step, len(notes)) == (0, 3)


def test_a_damaged_checkpoint_that_was_passed_over_goes_with_the_next(tmp_path, states):
    damage(tmp_path, 6, "gone")
    _, _, checkpoints = make_state(tmp_path)
    checkpoints.restore()
    checkpoints.save(5)
    assert names(tmp_path) == files_of(2, 4, 5)


def test_no_list_of_checkpoints_is_needed(tmp_path, states):
    """TensorFlow keeps one, in a file that a run can lose."""
    (tmp_path / "checkpoints" / "checkpoint").write_bytes(b"no list")
    assert make_state(tmp_path)[2].restore() == (6, [])


def test_a_checkpoint_of_another_model_is_no_damage(tmp_path, states):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5, name="dense")])
    optimizer = keras.optimizers.AdamW(0.1)
    optimizer.build(model.trainable_variables)
    path = tmp_path / "checkpoints" / "ckpt-6"
    message = rf"{path} does not fit the model and its optimizer \(.*\): use another --workdir"
    with pytest.raises(UserError, match=message):
        Checkpoints(tmp_path, model, optimizer, 3).restore()


def test_an_average_that_a_checkpoint_lacks_begins_with_its_weights(tmp_path, states):
    model, optimizer, _ = make_state(tmp_path, seed=9)
    averages = AveragedWeights(model.trainable_variables, 0.9)
    step, (note,) = Checkpoints(tmp_path, model, optimizer, 3, averages).restore()
    assert (step, note) == (
        6,
        "the checkpoint has no moving average: it starts from the current weights",
    )
    for average, expected in zip(averages.averages, states[6]):
        np.testing.assert_array_equal(average, expected)


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
    (tmp_path / "run").mkdir()
    _, _, checkpoints = make_state(tmp_path / "run")
    with pytest.raises(UserError, match=re.escape(f"pretrained={gone}: There is no {gone}")):
        check_pretrained(gone, tmp_path / "run")
    checkpoints.save(3)
    check_pretrained(gone, tmp_path / "run")


def test_checkpoints_that_cannot_be_looked_at_are_not_the_same_as_none(tmp_path, states, monkeypatch):
    """Else a run whose storage fails for a moment would begin anew, and remove them with its first one."""
    model, optimizer, checkpoints = make_state(tmp_path, seed=9)

    def refuse(path):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "iterdir", refuse)
        message = f"{tmp_path / 'checkpoints'} cannot be read: Input/output error"
        with pytest.raises(RunError, match=re.escape(message)):
            choose_start(checkpoints, model, "", Lines())
        assert checkpoints.last_good == message
        with pytest.raises(RunError, match=re.escape("The checkpoint of step 8 cannot be written:")):
            checkpoints.save(8)
    assert CheckpointFiles(tmp_path).complete() == [2, 4, 6]
    assert checkpoints.restore()[0] == 6
    assert_same(state_of(model, optimizer), states[6])


def test_a_folder_that_vanishes_before_the_checksums_is_one_line(tmp_path, monkeypatch):
    _, _, checkpoints = make_state(tmp_path)
    write = checkpoints._checkpoint.write

    def vanish(prefix):
        write(prefix)
        shutil.rmtree(tmp_path / "checkpoints")

    monkeypatch.setattr(checkpoints._checkpoint, "write", vanish)
    message = f"The checkpoint of step 4 cannot be written: {tmp_path / 'checkpoints'} is gone; there is no checkpoint"
    with pytest.raises(RunError, match=re.escape(message)):
        checkpoints.save(4)


def test_a_file_that_cannot_be_read_is_no_other_model(tmp_path, states, monkeypatch):
    _, _, checkpoints = make_state(tmp_path)

    def refuse(path):
        raise tf.errors.UnavailableError(None, None, "the server is away")

    monkeypatch.setattr(checkpoints._checkpoint, "read", refuse)
    with pytest.raises(RunError, match="ckpt-6 cannot be read: the server is away"):
        checkpoints.restore()
