"""Two runs in one workdir: the second is told who is there, and a killed one leaves no lock behind."""

import errno
import fcntl
import os
import re
import shutil
import signal
import socket

import pytest

from experiments.errors import UserError
from experiments.lock import sole_use_of
from tests.experiments.tiny import Lines


def test_the_second_run_is_told_who_holds_the_workdir(tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    with sole_use_of(workdir, Lines()):
        with pytest.raises(UserError) as error, sole_use_of(workdir, Lines()):
            pass
        since = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}"
        holder = f"process {os.getpid()} on {re.escape(socket.gethostname())}, since {since}"
        pattern = f"{workdir} is in use by {holder}: wait for it, or use another --workdir."
        assert re.fullmatch(pattern, str(error.value))
    with sole_use_of(workdir, Lines()):
        (workdir / "result").touch()
    assert os.listdir(workdir) == ["result"]


def test_a_killed_run_leaves_no_lock(tmp_path):
    """Another process holds the workdir until it is killed."""
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        with sole_use_of(tmp_path, Lines()):
            os.write(tell, b".")
            signal.pause()
        os._exit(0)
    os.read(ready, 1)
    try:
        with pytest.raises(UserError, match=f"in use by process {child} on "), sole_use_of(tmp_path, Lines()):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert os.listdir(tmp_path) == ["run.lock"]
    with sole_use_of(tmp_path, Lines()):
        pass
    assert os.listdir(tmp_path) == []


def test_folders_in_which_nothing_was_left_are_removed(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_use_of(tmp_path / "a" / "b", Lines()):
        assert (tmp_path / "a" / "b" / "run.lock").exists()
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    with sole_use_of(tmp_path / "a" / "b", Lines()):
        (tmp_path / "a" / "b" / "result").touch()
    assert (tmp_path / "a" / "b" / "result").exists()


def test_a_file_system_without_locks_is_used_without_one_and_a_line_says_so(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lines = Lines()
    with sole_use_of(tmp_path, lines):
        pass
    assert lines == [f"{tmp_path} cannot be locked (No locks available): make sure that no other run uses it"]


def test_a_url_has_no_lock_and_a_line_says_so():
    lines = Lines()
    with sole_use_of("gs://bucket/run", lines):
        pass
    assert lines == ["gs://bucket/run cannot be locked: make sure that no other run uses it"]


def test_the_lock_of_a_run_in_a_folder_that_was_made_anew_stays(tmp_path):
    """Somebody removes the folder of a run at work, and starts another one in its place."""
    workdir = tmp_path / "run"
    with sole_use_of(workdir, Lines()):
        shutil.rmtree(workdir)
        second = sole_use_of(workdir, Lines())
        second.__enter__()
    assert (workdir / "run.lock").exists()
    with pytest.raises(UserError, match="is in use by"), sole_use_of(workdir, Lines()):
        pass
    second.__exit__(None, None, None)
    assert not workdir.exists()
