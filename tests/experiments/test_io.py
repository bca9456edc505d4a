"""Paths of every kind: URLs, spaces, letters beyond ASCII, and characters that mean something in patterns."""

import errno
import os
import pathlib
import shutil
import signal

import pytest
import tensorflow as tf

from convnext.weights.loader import PretrainedError
from experiments import evaluate, finetune, pretrain
from experiments.errors import Interrupted, UserError
from experiments.io import (
    TEMPORARY,
    StorageError,
    appearing,
    append,
    as_path,
    local_copy,
    local_output,
    reason,
    remove,
    replacing,
)
from experiments.training.loggers import read_metrics
from experiments.training.workdir import check_writable, read_json, write_json
from tests.experiments.file_systems import ram_urls
from tests.experiments.tiny import Lines, picture_config
from tests.experiments.training.test_checkpoints import assert_same, files_of, make_state, names, state_of

pytestmark = pytest.mark.figures("curves")

ODD = "läufe [1] mit *? 日本"


@pytest.fixture
def ram(request):
    with ram_urls():
        yield as_path(f"ram://bucket/{request.node.originalname}")


def test_local_paths_stay_what_they_are():
    assert as_path("~/run") == pathlib.Path.home() / "run"
    assert as_path("a b/ü") == pathlib.Path("a b/ü")


def test_a_url_that_tensorflow_does_not_read_is_refused():
    assert str(as_path("gs://bucket/run") / "config.json") == "gs://bucket/run/config.json"
    message = "ftp://host/run: use a local path, or a URL such as gs://bucket/run."
    with pytest.raises(UserError, match=message):
        as_path("ftp://host/run")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nobody at all/run", "~nobody at all/run: the home folder of that user is unknown."),
        ("runs/a\udcffb", r"b'runs/a\xffb': the name is not valid UTF-8, which TensorFlow needs."),
    ],
)
def test_a_path_that_cannot_be_used_is_a_mistake(path, message):
    with pytest.raises(UserError) as error:
        as_path(path)
    assert str(error.value) == message


def test_a_workdir_on_a_file_system_that_is_not_there_is_refused():
    with pytest.raises(
        UserError, match="--workdir=s3://bucket/run cannot be used: File system scheme 's3' not implemented"
    ):
        check_writable(as_path("s3://bucket/run"))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "whatever"), "No space left on device"),
        (OSError("no number."), "no number"),
        (
            tf.errors.ResourceExhaustedError(None, None, "{{node X}} /a/b; Disk quota exceeded [Op:SaveV2]"),
            "Disk quota exceeded",
        ),
        (tf.errors.NotFoundError(None, None, "no bucket"), "no bucket"),
    ],
)
def test_the_reason_of_an_error_is_short(error, text):
    assert reason(error) == text


def test_files_at_a_url_are_replaced_extended_and_removed(ram):
    ram.mkdir(parents=True)
    write_json(ram / "a.json", {"a": 1})
    write_json(ram / "a.json", {"a": 2})
    assert read_json(ram / "a.json") == {"a": 2}
    with pytest.raises(ZeroDivisionError), replacing(ram / "a.json") as path:
        path.write_text("half")
        raise ZeroDivisionError
    assert read_json(ram / "a.json") == {"a": 2}
    append(ram / "lines", "one\n")
    append(ram / "lines", "two\n")
    assert (ram / "lines").read_text() == "one\ntwo\n"
    remove(ram / "lines")
    remove(ram / "lines")
    assert [path.name for path in ram.iterdir()] == ["a.json"]
    remove(ram)
    assert not ram.exists()


def test_what_cannot_be_written_is_one_line(tmp_path):
    path = tmp_path / "gone" / "file"
    with (
        pytest.raises(StorageError, match=f"{path} cannot be written: No such file or directory."),
        replacing(path) as file,
    ):
        file.write_text("text")


def write_folder(path):
    path.mkdir()
    (path / "a").write_text("a")


@pytest.mark.parametrize("write", [lambda path: path.write_text("file"), write_folder], ids=["file", "folder"])
def test_an_output_appears_whole_or_not_at_all(tmp_path, write):
    output = tmp_path / "output.json"
    stale = output.with_name(f"{TEMPORARY}output.json")  # of a process that was killed
    stale.mkdir()
    (stale / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), appearing(output) as temporary:
        write(temporary)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with appearing(output) as temporary:
        write(temporary)
        assert temporary.suffix == ".json" and not output.exists()
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] in (
        ["output.json"],
        ["output.json", "output.json/a"],
    )


@pytest.mark.parametrize("writer", [appearing, replacing])
def test_an_output_that_fails_leaves_what_was_there(tmp_path, writer):
    (tmp_path / "x").write_text("old")
    with pytest.raises((OSError, StorageError), match="cut"), writer(tmp_path / "x") as temporary:
        temporary.write_text("ne")
        raise OSError("cut")
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").read_text() == "old"


def test_weights_at_a_url_are_copied_with_what_lies_beside_them(ram):
    ram.mkdir(parents=True)
    for name in ("encoder.keras", "fcmae.keras", "config.json"):
        (ram / name).write_text(name)
    with local_copy(str(ram), beside=("config.json", "summary.json")) as path:
        assert {name: (path / name).read_text() for name in os.listdir(path)} == {
            "encoder.keras": "encoder.keras",
            "config.json": "config.json",
        }
    with local_copy(str(ram / "fcmae.keras")) as path:
        assert path.read_text() == "fcmae.keras"
    assert not path.exists()
    with (
        pytest.raises(PretrainedError, match=f"{ram}/fcmae.keras is bad"),
        local_copy(str(ram / "fcmae.keras")) as path,
    ):
        raise PretrainedError(f"{path} is bad")
    with local_copy("here") as path:
        assert path == "here"


def test_output_for_a_url_is_copied_there(ram):
    with local_output(str(ram / "file.txt")) as path:
        path.write_text("file")
    with local_output(str(ram / "folder")) as path:
        (path / "below").mkdir(parents=True)
        (path / "a").write_text("a")
        (path / "below" / "b").write_text("b")
    assert [(ram / name).read_text() for name in ("file.txt", "folder/a", "folder/below/b")] == ["file", "a", "b"]


@pytest.mark.parametrize("kind", ["ram", "odd"])
def test_checkpoints_anywhere(ram, tmp_path, kind):
    workdir = ram if kind == "ram" else tmp_path / ODD
    workdir.mkdir(parents=True)
    model, optimizer, checkpoints = make_state(workdir, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step)
    expected = state_of(model, optimizer)
    assert names(workdir) == files_of(2, 3)
    model, optimizer, checkpoints = make_state(workdir, seed=9)
    assert checkpoints.restore() == (3, [])
    assert_same(state_of(model, optimizer), expected)
    (workdir / "checkpoints" / "ckpt-3.data-00000-of-00001").write_bytes(b"damage")
    assert checkpoints.restore()[0] == 2


def test_runs_whose_paths_are_urls_or_odd_ones(pictures, ram, tmp_path, at_step):
    """Pretraining in a workdir behind a URL, stopped once; fine-tuning from it in one with an odd name."""
    folder, odd = tmp_path / "bilder ü [a] 日本", tmp_path / ODD
    shutil.copytree(pictures, folder)
    shared = {"pretrain": {"steps": 3, "pictures": 1}, "finetune": {"steps": 2}}
    config, lines = picture_config(folder, **shared), Lines()

    at_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="Stopped at step 2 of 3"):
        pretrain.run(config, str(ram), log=lines)
    at_step(0, None)
    assert pretrain.run(config, str(ram), log=lines)["steps"] == 3
    assert f"{ram} cannot be locked: make sure that no other run uses it" in lines
    assert "  starts from   its own checkpoint of step 2" in lines
    assert [line["step"] for line in read_metrics(ram)] == [1, 2, 3]
    assert (ram / "reconstructions" / "step_00000003.png").exists() and (ram / "curves.png").exists()

    assert finetune.run(picture_config(folder, **shared, pretrained=str(ram)), str(odd), log=lines)["steps"] == 2
    assert any(line.startswith(f"  starts from   {ram}/encoder.keras: ") for line in lines)
    assert read_json(odd / "summary.json")["pretrained"] == str(ram)
    with pytest.raises(UserError, match="validation"):  # found, and read so far that its split is missed
        evaluate.run(str(ram), probes=("knn",), split="validation", log=Lines())
