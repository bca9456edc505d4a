"""The record of an opened folder: a second start opens what changed, and finds what a first one would."""

import functools
import os
import threading
import time

import numpy as np
import pytest

from experiments.config import DataConfig
from experiments.data.decoding import problem_of
from experiments.data.sources import folder, index
from experiments.data.values import Reading
from tests.experiments.images import encode, gradient, write

ALL = DataConfig(validation_share=0.0, test_share=0.0)
IMAGE = encode(gradient(8, 8))
FILES = ("x/1.png", "x/2.png", "y/deep/3.png", os.fsdecode(b"y/caf\xe9.png"))


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """A function that opens a folder of four images and returns the `Source` and the files that were looked at."""
    root = tmp_path / "images"
    for name in FILES:
        write(root / name, IMAGE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "RECENT", 0)
    looked_at = []

    def counted(path, reading):
        looked_at.append(os.path.relpath(path, root))
        return problem_of(path, reading)

    monkeypatch.setattr(folder, "problem_of", counted)

    def open_it(config=ALL):
        looked_at.clear()
        return folder.open_folder(root, config), sorted(looked_at)

    open_it.root = root
    return open_it


def record(tmp_path):
    (path,) = (tmp_path / "cache" / "fcmae").iterdir()
    return path


def same(one, other):
    splits = zip(one.splits.values(), other.splits.values(), strict=True)
    return (one.notes, one.class_names, one.skipped) == (other.notes, other.class_names, other.skipped) and all(
        np.array_equal(a.contents, b.contents) and np.array_equal(a.labels, b.labels) for a, b in splits
    )


def test_a_second_start_opens_no_file_and_finds_the_same(opened):
    first, looked_at = opened()
    assert looked_at == sorted(FILES)
    second, looked_at = opened()
    assert looked_at == [] and same(first, second)


def test_only_what_changed_is_looked_at_again(opened):
    opened()
    root = opened.root
    before = (root / "x/1.png").stat()
    write(root / "x/1.png", IMAGE[:-1] + b"?")  # as large, and its time set back
    os.utime(root / "x/1.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(root / "x/2.png")
    write(root / "y/4.png", IMAGE)
    (root / "y/deep/3.png").unlink()
    source, looked_at = opened()
    assert looked_at == ["x/1.png", "x/2.png", "y/4.png"]
    assert source.skipped == (("x/1.png", problem_of(root / "x/1.png", Reading.of(ALL))),)
    assert source.split("train").num_examples == 3
    assert opened()[1] == ["x/1.png"]


def test_what_is_skipped_is_looked_at_by_every_start(opened, tmp_path):
    (opened.root / "x/9.png").symlink_to(tmp_path / "elsewhere.png")
    write(opened.root / "x/8.png", b"no image")
    opened()
    source, looked_at = opened()
    assert looked_at == ["x/8.png", "x/9.png"] and source.split("train").num_examples == 4
    write(tmp_path / "elsewhere.png", IMAGE)
    source, looked_at = opened()
    assert looked_at == ["x/8.png", "x/9.png"] and source.split("train").num_examples == 5
    assert opened()[1] == ["x/8.png"]


def test_a_file_that_changed_just_now_is_looked_at_again(opened, monkeypatch):
    monkeypatch.setattr(index, "RECENT", 60 * 10**9)
    opened()
    assert opened()[1] == sorted(FILES)


@pytest.mark.parametrize("change", ["limit", "code", "Pillow"])
def test_all_is_looked_at_again_under_other_rules(opened, monkeypatch, change):
    opened()
    config = ALL
    if change == "limit":
        config = DataConfig(validation_share=0.0, test_share=0.0, max_pixels=64)
    elif change == "code":
        monkeypatch.setattr(index, "_code_version", lambda: "another")
    else:
        monkeypatch.setattr(index.PIL, "__version__", "99")
    assert opened(config)[1] == sorted(FILES)
    assert opened(config)[1] == []


def _flip(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-7],
    "a bit of the header": lambda content: _flip(content, content.index(b"rules") + 1),
    "a bit of a name": lambda content: _flip(content, content.index(b"x/1.png") + 2),
    "a bit of a time": lambda content: _flip(content, len(content) - 40),
    "foreign": lambda content: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "no mapping": lambda content: b"[1, 2]\n[]",
    "nested": lambda content: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_ignored_and_written_anew(opened, tmp_path, damage):
    first, _ = opened()
    whole = record(tmp_path).read_bytes()
    record(tmp_path).write_bytes(DAMAGE[damage](whole))
    source, looked_at = opened()
    assert looked_at == sorted(FILES) and same(source, first)
    assert record(tmp_path).read_bytes() == whole
    assert opened()[1] == []


@pytest.mark.parametrize("slow", [False, True])
def test_a_record_that_cannot_be_written_stops_nothing(opened, tmp_path, monkeypatch, caplog, slow):
    write(tmp_path / "cache", b"a file where the folder should be")
    monkeypatch.setattr(index, "QUIET_SECONDS", -1.0 if slow else 100.0)
    assert opened()[0].split("train").num_examples == 4 and opened()[1] == sorted(FILES)
    assert [text.message for text in caplog.records] == slow * 2 * [
        f"{opened.root}: the record of its files cannot be saved: Not a directory. Set XDG_CACHE_HOME to "
        "another folder."
    ]


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.0, 2, 12), (0.003, 16, 33)])
def test_there_are_many_threads_where_files_wait_for_the_storage(tmp_path, monkeypatch, seconds, least, most):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    threads = set()

    def find(name):
        threads.add(threading.get_ident())
        end = time.thread_time() + 5e-5
        while time.thread_time() < end:
            pass
        if seconds:
            time.sleep(seconds)
        return [int(name)]

    names = [str(n) for n in range(50 * index.CHUNK)]  # all after one measurement
    assert index.look_at(tmp_path, dict.fromkeys(names, ""), find, "") == {n: [int(n)] for n in names}
    assert least <= len(threads) <= most


def test_a_start_that_takes_time_says_how_far_it_is(opened, monkeypatch, capsys):
    opened()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(index, "QUIET_SECONDS", -1.0)
    monkeypatch.setattr(index, "LOG_SECONDS", -1.0)
    monkeypatch.setattr(folder, "look_at", functools.partial(index.look_at, chunk=3))
    monkeypatch.setattr(index, "_code_version", lambda: "another")
    opened()
    lines = capsys.readouterr().err.split("\r")
    assert [f"looking at the files of {opened.root}:" in line for line in lines[1:]] == [True] * (len(lines) - 1)
    assert {"3/4", "4/4"} <= {word for line in lines for word in line.split()}
