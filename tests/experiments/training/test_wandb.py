"""Weights & Biases is missing, slow, broken or gone: a run goes on, and its metrics are complete."""

import sys
import time

import PIL.Image
import pytest

from experiments import pretrain
from experiments.config import WandbConfig
from experiments.errors import UserError
from experiments.io import as_path, replacing
from experiments.training import wandb_run
from experiments.training.tracking import Tracker, read_metrics
from experiments.training.wandb_run import check_wandb
from tests.experiments.disks import full_disk
from tests.experiments.file_systems import ram_urls
from tests.experiments.tiny import Lines, picture_config, tiny_config

NOWHERE = "http://127.0.0.1:9"
FAKE = """
import os, sys, tempfile, time
class Settings:
    def __init__(self, **values): pass
def init(mode, **arguments):
    {init}
    return Run()
def login(**arguments):
    {login}
class Run:
    dir = os.path.join(tempfile.gettempdir(), "files")
    def log(self, metrics, step):
        {log}
    def finish(self):
        {finish}
"""


@pytest.fixture
def no_account(tmp_path, monkeypatch):
    """No key, no server, and a home without settings."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Returns a function that puts a package called wandb in the place of the real one; what its functions do."""

    def install(**bodies):
        folder = tmp_path / "packages" / "wandb"
        folder.mkdir(parents=True)
        default = dict.fromkeys(("init", "login", "log", "finish"), "pass")
        (folder / "__init__.py").write_text(FAKE.format(**{**default, **bodies}))
        monkeypatch.setenv("PYTHONPATH", str(folder.parent))

    return install


def track(workdir, mode="offline", steps=3, kill=False):
    """Logs some steps; returns what is said, and the seconds that logging and closing took."""
    lines = Lines()
    workdir.mkdir(exist_ok=True)
    tracker = Tracker(workdir, tiny_config(wandb=WandbConfig(mode=mode)), lines)
    began = time.monotonic()
    tracker.begin(0)
    for step in range(1, steps + 1):
        tracker.log(step, {"loss": float(step)})
        tracker.flush()
        if step == 1 and kill:
            tracker._wandb._process.kill()
    logged = time.monotonic()
    tracker.close()
    assert [line["step"] for line in read_metrics(workdir)] == list(range(1, steps + 1))
    return lines, logged - began, time.monotonic() - logged


def records(workdir):
    """The contents of the records that Weights & Biases left in a workdir."""
    return [path.read_bytes() for path in (workdir / "wandb").glob("*run-*/*.wandb")]


def test_a_package_that_is_not_installed_is_a_mistake_at_the_start_of_a_new_run(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_run, "WORKER", ("no such program",))
    monkeypatch.setattr(wandb_run, "_is_installed", lambda: False)
    config = picture_config(pictures, wandb=WandbConfig(mode="offline"), pretrain={"steps": 1, "batch_size": 4})
    with pytest.raises(UserError, match="wandb.mode=offline needs the package wandb, which is not installed: pip"):
        pretrain.run(config, tmp_path / "run", log=Lines())
    assert not (tmp_path / "run").exists()
    pretrain.run(picture_config(pictures, pretrain={"steps": 1, "batch_size": 4}), tmp_path / "run", log=Lines())
    (tmp_path / "run" / "summary.json").unlink()
    lines = Lines()
    pretrain.run(config, tmp_path / "run", log=lines)  # a run that goes on is not stopped by it
    assert "wandb cannot start (No such file or directory): the run goes on without it." in lines


def test_a_folder_called_wandb_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(UserError, match="not installed"):
        check_wandb("offline")


def test_a_missing_key_is_a_mistake_for_an_online_run_alone(no_account, monkeypatch):
    monkeypatch.setattr(wandb_run, "CHECK_SECONDS", 200)
    check_wandb("disabled")
    check_wandb("offline")
    with pytest.raises(UserError, match="run `wandb login` or set WANDB_API_KEY, or .* --config.wandb.mode=offline"):
        check_wandb("online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    check_wandb("online")


@pytest.mark.parametrize("key", ["", "0" * 40], ids=["not logged in", "server gone"])
def test_a_run_that_reaches_no_server_is_recorded_offline(no_account, tmp_path, monkeypatch, capfd, key):
    monkeypatch.setattr(wandb_run, "START_SECONDS", 1)
    monkeypatch.setattr(wandb_run, "FINISH_SECONDS", 200)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    assert track(tmp_path / "run", "online")[0] == []
    errors = capfd.readouterr().err
    assert "wandb is not reached (" in errors and "recording offline; `wandb sync` sends it later." in errors
    assert any(b"loss" in record for record in records(tmp_path / "run"))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"init": "raise RuntimeError('no luck')"}, "wandb cannot start (no luck): the run goes on without it."),
        ({"log": "raise OSError(28, 'No space left')"}, "wandb takes no more metrics ([Errno 28] No space left)"),
        ({"finish": "raise RuntimeError('lost')"}, "wandb did not finish (lost)."),
    ],
)
def test_what_it_raises_is_one_line(fake, tmp_path, capfd, broken, said):
    fake(**broken)
    lines, *_ = track(tmp_path / "run")
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(said) and lines == []


def test_a_package_that_cannot_be_imported_is_one_line(fake, tmp_path, capfd):
    fake(init="return 1 +")
    track(tmp_path / "run")
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("wandb cannot start (invalid syntax")


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_what_hangs_is_given_up_at_the_end(fake, tmp_path, monkeypatch, where):
    monkeypatch.setattr(wandb_run, "FINISH_SECONDS", 1)
    monkeypatch.setattr(wandb_run, "QUEUE_LENGTH", 10)
    fake(**{where: "time.sleep(600)"})
    lines, logging, closing = track(tmp_path / "run", steps=1 if where == "finish" else 3000)
    assert logging < 60 and closing < 60
    assert any("wandb did not finish in 1 seconds: the run ends without it." in line for line in lines)
    assert (where == "finish") != any("wandb was too slow for " in line for line in lines)


def test_a_worker_that_is_killed_is_told_of_at_the_end(tmp_path):
    lines, *_ = track(tmp_path / "run", steps=2000, kill=True)
    assert lines == ["wandb broke off; metrics.jsonl has all metrics."]


def test_a_full_disk_under_its_files_is_one_line_and_costs_no_metrics(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(wandb_run, "FINISH_SECONDS", 200)
    workdir = tmp_path / "run"
    workdir.mkdir()
    with full_disk(tmp_path / "disk") as disk:
        (workdir / "wandb").symlink_to(disk.folder, target_is_directory=True)
        disk.fill(room=1 << 16)
        lines, *_ = track(workdir, steps=2000)
    (said,) = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("wandb: ")]
    assert said.startswith(f"wandb may have lost the end of its record ({disk.reason}: ")
    assert said.endswith("metrics.jsonl has all metrics.") and lines == []


PICTURE = """
        import os, sys
        print(sorted((name, str(type(value))) for name, value in metrics.items()), file=sys.stderr)"""
IMAGE = """
class Image:
    def __init__(self, picture):
        if picture.size != (3, 2): raise ValueError("no picture of mine")
"""


@pytest.mark.parametrize("size", [(3, 2), (4, 4)], ids=["taken", "refused"])
def test_pictures_at_urls_come_along_and_one_that_is_refused_costs_no_metrics(fake, tmp_path, capfd, size):
    fake(log=PICTURE.strip())
    package = tmp_path / "packages" / "wandb" / "__init__.py"
    package.write_text(package.read_text() + IMAGE)
    with ram_urls():
        url = as_path("ram://pictures/one.png")
        url.parent.mkdir(parents=True, exist_ok=True)
        with replacing(url) as local:
            PIL.Image.new("L", size).save(local)
        (tmp_path / "run").mkdir()
        tracker = Tracker(tmp_path / "run", tiny_config(wandb=WandbConfig(mode="offline")), Lines())
        tracker.begin(0)
        tracker.picture(1, "gone", url.parent / "gone.png")
        tracker.picture(1, "one", url)
        tracker.log(2, {"loss": 1.0})
        tracker.close()
    first, last = capfd.readouterr().err.splitlines()
    taken = "[('one', \"<class 'wandb.Image'>\")]"
    assert first == (taken if size == (3, 2) else "wandb takes no picture (no picture of mine).")
    assert last == "[('loss', \"<class 'float'>\")]"
