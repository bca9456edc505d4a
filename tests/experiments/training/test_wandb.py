"""Weights & Biases is missing, slow, broken or gone: a run goes on, and its metrics are complete."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import PIL.Image
import pytest
import wandb

from experiments import pretrain
from experiments.config import WandbConfig
from experiments.errors import UserError
from experiments.io import as_path, replacing
from experiments.training import wandb_logger
from experiments.training.loggers import Loggers, read_metrics
from experiments.training.wandb_logger import check_wandb
from tests.experiments.disks import full_disk
from tests.experiments.file_systems import ram_urls
from tests.experiments.tiny import Lines, picture_config, tiny_config

NOWHERE = "http://127.0.0.1:9"
COMPLETE = "metrics.jsonl has all metrics."
FAKE = """
import os, sys, tempfile, time
class Settings:
    def __init__(self, **values): pass
def init(mode, **arguments):
    {init}
    return Run()
def login(**arguments):
    {login}
def teardown():
    {teardown}
class Run:
    dir = os.path.join(tempfile.gettempdir(), "files")
    def log(self, metrics, step):
        {log}
    def finish(self):
        {finish}
class Image:
    def __init__(self, picture):
        if picture.size != (3, 2): raise ValueError("no picture of mine")
"""


@pytest.fixture
def no_account(tmp_path, monkeypatch):
    """No key, no server, and a home without settings."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    wandb.teardown()  # forgets what it has read
    yield
    wandb.teardown()


@pytest.fixture
def fake(monkeypatch):
    """Returns a function that puts a package called wandb in the place of the real one; what its functions do."""

    def install(**bodies):
        package = types.ModuleType("wandb")
        default = dict.fromkeys(("init", "login", "log", "finish", "teardown"), "pass")
        exec(FAKE.format(**{**default, **bodies}), package.__dict__)
        monkeypatch.setitem(sys.modules, "wandb", package)

    return install


def track(workdir, mode="offline", steps=3, service_signal=None):
    """Logs some steps; returns the seconds that logging and closing took.

    Args:
        workdir: to log in.
        mode: of Weights & Biases.
        steps: their number.
        service_signal: sent to the service process of Weights & Biases after the first step.
    """
    workdir.mkdir(exist_ok=True)
    loggers = Loggers(workdir, tiny_config(wandb=WandbConfig(mode=mode)))
    began = time.monotonic()
    loggers.begin(0)
    for step in range(1, steps + 1):
        loggers.scalars(step, {"loss": float(step), **{f"metric_{i}": 0.0 for i in range(10)}})
        loggers.flush()
        if step == 1 and service_signal:
            os.kill(service(loggers._loggers[-1]), service_signal)
    logged = time.monotonic()
    loggers.close()
    assert [line["step"] for line in read_metrics(workdir)] == list(range(1, steps + 1))
    return logged - began, time.monotonic() - logged


def service(logger):
    """The number of the service process, which the logger's thread starts."""
    children = pathlib.Path(f"/proc/self/task/{logger._thread.native_id}/children")
    while logger._queue.qsize():  # until `init` is done
        time.sleep(0.1)
    (process,) = map(int, children.read_text().split())
    return process


def warned(caplog):
    """What the project warns of; Weights & Biases has loggers of its own."""
    return [message for name, _, message in caplog.record_tuples if name == "experiments"]


def records(workdir):
    """The contents of the records that Weights & Biases left in a workdir."""
    return [path.read_bytes() for path in (workdir / "wandb").glob("*run-*/*.wandb")]


def test_a_package_that_is_not_installed_is_a_mistake_at_the_start_of_a_new_run(
    pictures, tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "wandb", None)  # which Python takes for a package that is not there
    config = picture_config(pictures, wandb=WandbConfig(mode="offline"), pretrain={"steps": 1, "batch_size": 4})
    with pytest.raises(UserError, match="wandb.mode=offline needs the package wandb, which is not installed: pip"):
        pretrain.run(config, tmp_path / "run", log=Lines())
    assert not (tmp_path / "run").exists()
    pretrain.run(picture_config(pictures, pretrain={"steps": 1, "batch_size": 4}), tmp_path / "run", log=Lines())
    (tmp_path / "run" / "summary.json").unlink()
    pretrain.run(config, tmp_path / "run", log=Lines())  # it does not stop a run that has begun
    (message,) = warned(caplog)
    assert message.startswith("wandb cannot start (import of wandb halted") and message.endswith(COMPLETE)


def test_a_folder_called_wandb_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(UserError, match="not installed"):
        check_wandb("offline")


def test_a_missing_key_is_a_mistake_for_an_online_run_alone(no_account, monkeypatch):
    check_wandb("disabled")
    check_wandb("offline")
    with pytest.raises(UserError, match="run `wandb login` or set WANDB_API_KEY, or .* --config.wandb.mode=offline"):
        check_wandb("online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    check_wandb("online")
    children = [path.read_text().split() for path in pathlib.Path("/proc/self/task").glob("*/children")]
    names = [pathlib.Path("/proc", process, "comm").read_text() for process in sum(children, [])]
    assert not [name for name in names if "wandb" in name]


@pytest.mark.parametrize("key", ["", "0" * 40], ids=["not logged in", "server gone"])
def test_a_run_that_reaches_no_server_is_recorded_offline(no_account, tmp_path, monkeypatch, caplog, key):
    monkeypatch.setattr(wandb_logger, "START_SECONDS", 1)
    monkeypatch.setattr(wandb_logger, "FINISH_SECONDS", 200)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    track(tmp_path / "run", "online")
    (message,) = warned(caplog)
    assert message.startswith("wandb cannot be reached (")
    assert message.endswith("): recording offline; `wandb sync` sends it later.")
    assert any(b"loss" in record for record in records(tmp_path / "run"))


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ({"init": "raise RuntimeError('no luck')"}, "cannot start (no luck)"),
        ({"init": "sys.exit(3)"}, "cannot start (3)"),
        ({"log": "raise OSError(28, 'No space left')"}, "stopped accepting metrics ([Errno 28] No space left)"),
        ({"finish": "raise RuntimeError('lost')"}, "did not finish (lost)"),
        ({"finish": "raise RuntimeError('lost')", "teardown": "raise OSError"}, "did not finish (lost)"),
    ],
)
def test_what_it_raises_is_one_line(fake, tmp_path, caplog, broken, problem):
    fake(**broken)
    track(tmp_path / "run")
    assert warned(caplog) == [f"wandb {problem}: training continues without it; {COMPLETE}"]


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_what_hangs_is_given_up_at_the_end(fake, tmp_path, monkeypatch, caplog, where):
    monkeypatch.setattr(wandb_logger, "FINISH_SECONDS", 1)
    monkeypatch.setattr(wandb_logger, "TEARDOWN_SECONDS", 1)
    monkeypatch.setattr(wandb_logger, "QUEUE_LENGTH", 10)
    fake(**{where: "time.sleep(600)"})
    logging, closing = track(tmp_path / "run", steps=1 if where == "finish" else 3000)
    assert logging < 60 and closing < 60
    first, *others = warned(caplog)
    assert first == f"wandb did not finish within 1 seconds; {COMPLETE}"
    assert len(others) == (where != "finish") and all(line.startswith("wandb was too slow for ") for line in others)


PROGRAM = """
import pathlib, sys
from experiments.training import wandb_logger
from tests.experiments.training.test_wandb import track
wandb_logger.FINISH_SECONDS = 5
track(pathlib.Path(sys.argv[1]), steps=3000, service_signal=int(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (signal.SIGKILL, "wandb stopped accepting metrics ("),
        (signal.SIGSTOP, "wandb did not finish within 5 seconds; "),
    ],
    ids=["killed", "hangs"],
)
def test_a_program_whose_service_is_lost_ends_with_one_line(tmp_path, number, problem):
    """Also where Weights & Biases itself would wait for the service, or show a traceback, when Python exits."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), str(int(number))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("wandb ") or "Traceback" in line]
    assert ended.returncode == 0 and len(lines) == 1, ended.stderr
    assert lines[0].startswith(problem) and lines[0].endswith(COMPLETE)


def test_a_full_disk_under_its_files_is_one_line_and_costs_no_metrics(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(wandb_logger, "FINISH_SECONDS", 200)
    workdir = tmp_path / "run"
    workdir.mkdir()
    with full_disk(tmp_path / "disk") as disk:
        (workdir / "wandb").symlink_to(disk.folder, target_is_directory=True)
        disk.fill(room=1 << 16)
        track(workdir, steps=2000)
    (message,) = warned(caplog)
    assert message.startswith(f"wandb may have lost the end of its record ({disk.reason}: ")
    assert message.endswith(COMPLETE)


@pytest.mark.parametrize("size", [(3, 2), (4, 4)], ids=["taken", "refused"])
def test_pictures_at_urls_come_along_and_one_that_is_refused_costs_no_metrics(fake, tmp_path, capfd, caplog, size):
    fake(log="print(step, sorted((name, type(value).__name__) for name, value in metrics.items()))")
    with ram_urls():
        url = as_path("ram://pictures/one.png")
        url.parent.mkdir(parents=True, exist_ok=True)
        with replacing(url) as local:
            PIL.Image.new("L", size).save(local)
        loggers = Loggers(tmp_path, tiny_config(wandb=WandbConfig(mode="offline")))
        loggers.begin(0)
        loggers.pictures(1, {"gone": url.parent / "gone.png", "one": url})
        loggers.scalars(2, {"loss": 1.0})
        loggers.close()
    taken = ["1 [('one', 'Image')]"] if size == (3, 2) else []
    assert capfd.readouterr().out.splitlines() == [*taken, "2 [('loss', 'float')]"]
    assert warned(caplog) == ([] if taken else ["wandb rejected a picture (no picture of mine)."])
