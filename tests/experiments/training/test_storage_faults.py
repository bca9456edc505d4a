"""What a person sees when storage fails, and what is left of the run."""

import errno
import logging
import os
import re
import shutil

import pytest

from experiments import pretrain
from experiments.errors import RunError, UserError
from experiments.io import TEMPORARY, append
from experiments.training.loggers import Loggers, read_metrics
from experiments.training.workdir import check_recorded, check_writable, read_json, record_config, write_json
from tests.experiments.disks import full_disk, mounted
from tests.experiments.tiny import Lines, change, picture_config, tiny_config
from tests.experiments.training.test_checkpoints import files_of, make_state, names

pytestmark = pytest.mark.figures("curves")

CONFIG = {
    "pretrain": {"steps": 6},  # of 3 an epoch
    "checkpoint_every": 2,
}


@pytest.fixture
def disk(tmp_path):
    with full_disk(tmp_path / "disk") as disk:
        yield disk


def test_a_full_disk_leaves_the_checkpoints_before_and_nothing_half_written(disk):
    _, _, checkpoints = make_state(disk.folder)
    checkpoints.save(2)
    disk.fill()
    with pytest.raises(RunError) as error:
        checkpoints.save(4)
    disk.free()
    good = disk.folder / "checkpoints" / "ckpt-2"
    problem = f"The checkpoint of step 4 cannot be written: {disk.reason}"
    assert str(error.value) == f"{problem}; the last good checkpoint is {good}."
    assert names(disk.folder) == files_of(2)
    checkpoints.save(4)
    assert names(disk.folder) == files_of(2, 4)


def test_a_disk_that_fills_before_the_checksums_leaves_no_checkpoint(disk, monkeypatch):
    _, _, checkpoints = make_state(disk.folder)
    write = checkpoints._checkpoint.write

    def fill_after(prefix):
        write(prefix)
        disk.fill()

    monkeypatch.setattr(checkpoints._checkpoint, "write", fill_after)
    path = disk.folder / "checkpoints" / "ckpt-4.sha256"
    why = f"{path} cannot be written: {disk.reason}; there is no checkpoint yet."
    with pytest.raises(RunError, match=re.escape(f"The checkpoint of step 4 cannot be written: {why}")):
        checkpoints.save(4)
    disk.free()
    assert names(disk.folder) == []


def test_a_line_is_added_whole_or_not_at_all(disk):
    path = disk.folder / "lines"
    append(path, "first\n")
    disk.fill()
    with pytest.raises(OSError):
        append(path, "x" * 100_000 + "\n")
    disk.free()
    assert path.read_text() == "first\n"
    append(path, "second\n")
    assert path.read_text() == "first\nsecond\n"


def test_a_run_goes_on_without_pictures_but_not_without_checkpoints(pictures, disk, at_step, caplog):
    """The disk is full from step 3 on, after the checkpoint of step 2 and a picture."""
    caplog.set_level(logging.WARNING, "experiments")
    config = change(picture_config(pictures, **CONFIG), "pretrain", pictures=2)  # after steps 3 and 6
    workdir = disk.folder / "run"
    at_step(3, disk.fill)
    with pytest.raises(RunError, match=f"The checkpoint of step 4 cannot be written: {disk.reason}; .*ckpt-2"):
        pretrain.run(config, workdir, log=Lines())
    for name in ("reconstructions/step_00000003.png", "curves.png"):
        assert f"{workdir / name} cannot be written: {disk.reason}. Training continues." in caplog.messages
    disk.free()
    assert names(workdir) == files_of(2)
    assert [path for path in workdir.rglob(".*")] == []

    at_step(0, None)
    lines = Lines()
    assert pretrain.run(config, workdir, log=lines)["steps"] == 6
    assert "  starts from   its own checkpoint of step 2" in lines
    assert [line["step"] for line in read_metrics(workdir)] == [1, 2, 3, 4, 5, 6]
    assert names(workdir) == files_of(2, 4, 6)


def test_lines_that_could_not_be_written_follow_when_there_is_room(disk):
    loggers = Loggers(disk.folder, tiny_config())
    loggers.begin(0)
    for step in (1, 2, 3, 4):
        if step == 2:
            disk.fill()
        elif step == 4:
            disk.free()
        loggers.scalars(step, {f"metric_{i}": 1.0 for i in range(300)})  # a line that needs room of its own
        loggers.flush()
        assert [line["step"] for line in read_metrics(disk.folder)] == {1: [1], 2: [1], 3: [1], 4: [1, 2, 3, 4]}[step]
    loggers.close()


def test_a_workdir_that_vanishes_ends_the_run_and_is_not_made_anew(pictures, tmp_path, at_step):
    workdir = tmp_path / "run"
    at_step(3, lambda: shutil.rmtree(workdir))
    with pytest.raises(RunError, match=f"The checkpoint of step 4 cannot be written: {workdir} no longer exists."):
        pretrain.run(picture_config(pictures, **CONFIG), workdir, log=Lines())
    assert not workdir.exists()


def test_a_read_only_workdir_is_refused_at_once(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "open_source", None)  # must not be called
    with mounted(tmp_path, "ro", "size=1m") as done:
        if not done:
            tmp_path.chmod(0o555)
        if os.access(tmp_path, os.W_OK):
            pytest.skip("needs the right to mount: this user may write everywhere")
        with pytest.raises(UserError, match=f"--workdir={tmp_path / 'run'}: {tmp_path} cannot be written to."):
            pretrain.run(picture_config(pictures, **CONFIG), tmp_path / "run", log=Lines())


def test_a_file_in_place_of_the_workdir_is_refused(pictures, tmp_path):
    (tmp_path / "file").touch()
    message = f"--workdir={tmp_path / 'file'}: {tmp_path / 'file'} is a file, not a folder."
    with pytest.raises(UserError, match=message):
        pretrain.run(picture_config(pictures, **CONFIG), tmp_path / "file", log=Lines())


def test_a_link_to_nothing_in_place_of_the_workdir_is_refused(tmp_path):
    workdir = tmp_path / "run"
    workdir.symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=f"--workdir={workdir} is a broken link."):
        check_writable(workdir)
    (tmp_path / "gone").mkdir()
    check_writable(workdir)


def test_another_configuration_goes_on_when_told_and_its_differences_are_said(pictures, tmp_path):
    config = picture_config(pictures, **CONFIG)
    pretrain.run(config, tmp_path, log=Lines())
    longer = change(config, "pretrain", steps=7, mask_ratio=0.5)
    hint = re.escape("use another --workdir, or resume with the new configuration by --resume=anyway.")
    with pytest.raises(
        UserError, match=rf"\(pretrain.mask_ratio was 0.6, now 0.5; pretrain.steps was 6, now 7\): {hint}"
    ):
        pretrain.run(longer, tmp_path, log=Lines())
    lines = Lines()
    assert pretrain.run(longer, tmp_path, resume="anyway", log=lines)["steps"] == 7
    assert lines[:2] == [
        "resuming with a changed configuration: pretrain.mask_ratio was 0.6, now 0.5",
        "resuming with a changed configuration: pretrain.steps was 6, now 7",
    ]
    assert "  starts from   its own checkpoint of step 6" in lines
    assert read_json(tmp_path / "config.json")["config"]["pretrain"]["steps"] == 7

    other = change(longer, "model", dims=(6,))
    with pytest.raises(UserError, match="ckpt-7 does not fit the model and its optimizer"):
        pretrain.run(other, tmp_path, resume="anyway", log=Lines())
    lines = Lines()
    assert pretrain.run(longer, tmp_path, log=lines)["steps"] == 7
    assert lines == [f"The run in {tmp_path} is complete."]


def test_a_field_that_is_newer_than_a_run_had_its_default(pictures, tmp_path):
    config = picture_config(pictures, **CONFIG)
    record_config(tmp_path, config, "pretrain")
    recorded = read_json(tmp_path / "config.json")
    del recorded["config"]["pretrain"]["probe_every"]
    write_json(tmp_path / "config.json", recorded)
    assert check_recorded(tmp_path, config, "pretrain") == []
    with pytest.raises(UserError, match=r"pretrain.probe_every was 0, now 3"):
        check_recorded(tmp_path, change(config, "pretrain", probe_every=3), "pretrain")


def test_a_run_goes_on_when_nobody_takes_its_words(pictures, tmp_path):
    """The reader of a pipe has left; the disk under a log file is full."""
    said = []

    def log(line):
        said.append(line)
        raise BrokenPipeError

    assert pretrain.run(picture_config(pictures, **CONFIG), tmp_path, log=log)["steps"] == 6
    assert any(line.startswith("pretrain  step 6/6") for line in said)


def test_a_workdir_that_cannot_be_looked_at_is_one_line(tmp_path, monkeypatch):
    """As on a server of files that has gone."""
    _, _, checkpoints = make_state(tmp_path)
    checkpoints.save(2)

    def refuse(path):
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "exists", refuse)
        with pytest.raises(RunError, match="The checkpoint of step 4 cannot be written: Stale file handle"):
            checkpoints.save(4)


@pytest.mark.parametrize("name", ["x" * 300, "closed/run"])
def test_a_workdir_whose_path_is_refused_is_a_mistake(pictures, tmp_path, monkeypatch, name):
    """It is too long, or lies in a folder that one may not enter (which an administrator always may)."""
    if name == "closed/run":
        exists = type(tmp_path).exists

        def refuse(path):
            if "closed" in path.parts:
                raise PermissionError(errno.EACCES, "Permission denied")
            return exists(path)

        monkeypatch.setattr(type(tmp_path), "exists", refuse)
    why = "File name too long" if len(name) > 255 else "Permission denied"
    with pytest.raises(UserError, match=rf"^--workdir=.* cannot be used: {why}\.$"):
        pretrain.run(picture_config(pictures, **CONFIG), tmp_path / name, log=Lines())


def test_a_record_that_cannot_be_looked_at_is_a_mistake_in_one_line(pictures, tmp_path, monkeypatch):
    (tmp_path / "config.json").touch()

    def fail(workdir, *_):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr("experiments.training.start.check_recorded", fail)
    with pytest.raises(UserError, match=r"^--workdir=.* cannot be used: Stale file handle\.$"):
        pretrain.run(picture_config(pictures, **CONFIG), tmp_path, log=Lines())


def test_metrics_that_cannot_be_read_end_the_run_with_one_line(pictures, tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(RunError) as error:
        pretrain.run(picture_config(pictures, **CONFIG), tmp_path, log=Lines())
    assert str(error.value) == f"{tmp_path / 'metrics.jsonl'} cannot be read: Is a directory."


def test_lines_held_back_are_written_at_the_end(disk):
    loggers = Loggers(disk.folder, tiny_config())
    loggers.begin(0)
    disk.fill()
    loggers.scalars(1, {"loss": 1.0})
    loggers.flush()
    disk.free()
    loggers.close()
    assert read_metrics(disk.folder) == [{"step": 1, "loss": 1.0}]


@pytest.mark.parametrize("folder", [".", "reconstructions", "segmentations"])
def test_what_a_killed_run_left_half_written_is_removed(tmp_path, folder):
    stale = tmp_path / folder / f"{TEMPORARY}step_00000003.png"
    stale.parent.mkdir(exist_ok=True)
    stale.touch()
    record_config(tmp_path, tiny_config(), "finetune")
    assert not stale.exists() and (tmp_path / "config.json").exists()
