"""The page that compares runs: its figures are those of the workdirs, whatever state these are in."""

import base64
import configparser
import fnmatch
import html.parser
import importlib.resources
import json
import math
import pathlib
import re

import pytest

from experiments.errors import UserError
from experiments.io import as_path
from experiments.report.page import write_report
from tests.experiments.file_systems import ram_urls
from tests.experiments.report.workdirs import (
    CLASSES,
    TOP1,
    finetuned,
    pretrained,
    segment,
    write_json,
)


class Page(html.parser.HTMLParser):
    """Takes a page apart: `tables` of rows of cells, all `attributes`, all `text`, all names of elements."""

    def __init__(self, source):
        super().__init__()
        self.tables, self.attributes, self.text, self.elements = [], [], "", set()
        self._in_cell = False
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.elements.add(tag)
        self.attributes += attributes
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self._in_cell:
            self.tables[-1][-1][-1] += data

    def row(self, name, table=None):
        """`{heading: cell}` of the row of a run, in the first table that has one."""
        for head, *rows in self.tables if table is None else [self.tables[table]]:
            for row in rows:
                if row[0].strip() == name:
                    return dict(zip((cell.strip() for cell in head), row))
        raise KeyError(name)


def page_of(tmp_path, *workdirs, **arguments):
    problems = write_report(workdirs, tmp_path / "page.html", **arguments)
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    page.problems = problems
    return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    pretrained(folder / "first")
    pretrained(folder / "second", seed=1, mask_ratio=0.8)
    finetuned(folder / "tuned", folder / "first")
    finetuned(folder / "scratch", test_top1=75.0)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return page_of(folder, *(folder / name for name in ("tuned", "scratch", "first", "second")))


def test_figures_of_pretraining_are_those_of_the_workdir(page):
    row = page.row("second")
    assert row == {
        "run": row["run"],
        "seed": "1",
        "pretrain.mask_ratio": "0.8",
        "k-NN (random)": "61.25 (50.25)",
        "validation loss": "1.4321",
        "training loss": "0.2500",
        "images": "123",
        "steps": "40",
        "epochs": "4",
        "time": "1 min 40 s",
        "images/s": "102",
    }


def test_figures_of_classifiers_are_those_of_the_workdir(page):
    row = page.row("tuned")
    assert row["starts from"].strip() == "first" and page.row("scratch")["starts from"] == "random weights"
    assert float(row["test top-1"]) == 70.0 and float(row["validation top-1"]) == 72.5
    assert row["best: validation top-1"] == "74.25, epoch 1"
    assert float(row["±"]) == round(math.sqrt(70.0 * 30.0 / 80), 2)
    assert page.problems == []


def test_classes_are_those_of_the_workdir(page):
    for name, top1 in zip(CLASSES, TOP1):
        row = page.row(name)
        assert row["images"] == "40" and float(row["tuned"]) == top1


def test_the_lead_names_the_highest_top1(page):
    lead = " ".join(page.text.split())
    assert "2 pretrained encoders and 2 classifiers on digits. The highest top-1 on test images: 75.00% ± 4.84" in lead
    assert "4.84, of scratch. All runs are complete." in lead


def test_only_fields_that_are_used_and_differ_are_shown(page):
    fields = {row[0]: row[1:] for row in page.tables[-1]}
    assert fields["seed"] == ["0", "1", "0", "0"] and fields["pretrain.mask_ratio"] == ["0.6", "0.8", "", ""]
    assert fields.keys() == {"field", "seed", "pretrain.mask_ratio", "pretrained"}


def test_command_hardware_commit_and_versions_are_shown(page):
    for text in (
        "python -m launch.pretrain --workdir=runs/a",
        "2 x GPU, mirrored, Some GPU, float32",
        "Some CPU, 2 cores, Some system",
        "0123456789abcdef, with uncommitted changes",
        "python 3.11.7, keras 3.15.1",
        "2026-01-31 12:00 UTC",
    ):
        assert text in page.text


def test_pictures_are_those_of_the_workdir(folder, page):
    sources = [value for name, value in page.attributes if name == "src"]
    embedded = {base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources}
    files = {path.read_bytes() for path in folder.rglob("*.png")}
    assert len(sources) == 2 * 3 + 2 * 2 and embedded == files


def test_nothing_comes_from_elsewhere(folder, page):
    source = (folder / "page.html").read_text(encoding="utf-8")
    assert source.startswith("<!DOCTYPE html>\n")
    assert "://" not in source and "@import" not in source and "script" not in page.elements
    assert not re.search(r"url\((?!#)", source)
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    ids = [value for name, value in page.attributes if name == "id"]
    assert {link[1:] for link in links if link[0] == "#"} <= set(ids)


def test_an_installed_package_has_the_template_and_its_style():
    setup = configparser.ConfigParser()
    setup.read(pathlib.Path(__file__).parents[3] / "setup.cfg", encoding="utf-8")
    patterns = setup["options.package_data"]["experiments.report"].split(", ")
    files = [
        path.name
        for path in importlib.resources.files("experiments.report").iterdir()
        if path.suffix not in ("", ".py")
    ]
    assert len(files) == 2 and all(any(fnmatch.fnmatch(name, pattern) for pattern in patterns) for name in files)


def test_what_files_and_paths_hold_is_text(tmp_path):
    evil = '<script>alert("&amp;")</script>'
    workdir = finetuned(tmp_path / "<img src=x onerror=1>", classes=("<b>bold</b>", "'quoted'"))
    for name in ("config.json", "environment.json"):
        (workdir / name).write_text((workdir / name).read_text().replace("digits", "<i>").replace("Some CPU", "<u>"))
    page = page_of(tmp_path, workdir, title=evil)
    assert {"script", "b", "i", "u"} & page.elements <= {"b"}  # b stands in the explanations
    for text in (evil, "<img src=x onerror=1>", "<b>bold</b>", "'quoted'", '"source": "<i>"', "<u>, 2 cores"):
        assert text in page.text


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "summary.json", "environment.json",
                                  "reconstructions/step_00000040.png"])  # fmt: skip
@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b'["a"]', b"[" * 5000, b'{"a":' * 900 + b"1" + b"}" * 900]
)
def test_a_damaged_file_is_named_and_the_rest_is_shown(tmp_path, name, content):
    workdir = pretrained(tmp_path / "run", lines=0)
    (workdir / name).write_bytes(content)
    page = page_of(tmp_path, workdir)
    if name != "metrics.jsonl" or content:  # an empty one is that of a run that has just begun
        assert [problem for problem in page.problems if name in problem]
        assert name in page.text
    assert "61.25 (50.25)" in page.text
    assert page.row("run")["images"] == "123"


def test_missing_files_are_named(tmp_path):
    workdir = finetuned(tmp_path / "run")
    names = ("config.json", "metrics.jsonl", "environment.json", "report_test.csv", "confusion_test.png")
    for name in names:
        (workdir / name).unlink()
    page = page_of(tmp_path, workdir)
    assert [name for name in names if f"{name} is missing" in page.text] == list(names)
    assert float(page.row("run")["test top-1"]) == 70.0 and page.row("run")["time"] == "2 h 1 min"


def changed(content, path, value):
    """A copy of nested JSON in which the value at a path of keys is another one."""
    if not path:
        return value
    copy = list(content) if isinstance(content, list) else dict(content)
    copy[path[0]] = changed(content[path[0]], path[1:], value)
    return copy


def paths_in(content, depth=4):
    """All paths of keys in nested JSON."""
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    return [(key, *rest) for key in keys for rest in [(), *(paths_in(content[key], depth - 1) if depth else ())]]


@pytest.mark.parametrize("make", [pretrained, finetuned])
@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        "\ud800",
        "a\0b",
        "0001-01-01T00:00:00+14:00",
        -1,
        10**400,
        1e308,
        [],
        {},
        [[1]],
        True,
        math.nan,
        math.inf,
    ],
)
def test_values_of_any_kind_make_a_page(tmp_path, make, value):
    original = make(tmp_path / "run")
    runs = []
    for name in ("config.json", "summary.json", "environment.json", "best.json"):
        content = json.loads((original / name).read_text()) if (original / name).exists() else {}
        for path in paths_in(content):
            runs.append(tmp_path / f"{name}_{len(runs)}")
            runs[-1].mkdir()
            for file in original.glob("*.json*"):
                (runs[-1] / file.name).symlink_to(file)
            (runs[-1] / name).unlink()
            write_json(runs[-1] / name, changed(content, path, value))
    assert len(runs) > 20
    assert len(page_of(tmp_path, *runs).tables[0]) > 1


@pytest.mark.parametrize(
    "value", ["null", "10e400", "1e308", "-1e308", "1" + "0" * 400, "NaN", "-Infinity", '"text"', "[]"]
)
def test_metrics_of_any_kind_make_a_page(tmp_path, value):
    workdir = pretrained(tmp_path / "run", lines=0)
    lines = [f'{{"step": {step}, "epoch": 1, "loss": {loss}}}\n' for step, loss in ((1, 2.0), (2, value), (value, 3.0))]
    (workdir / "metrics.jsonl").write_text("".join(lines))
    assert "training loss" in page_of(tmp_path, workdir).text


@pytest.mark.parametrize("value", ["", "text", "nan", "-1", "1e400", "9" * 5000, "²"])
def test_a_table_of_classes_of_any_kind_makes_a_page(tmp_path, value):
    workdir = finetuned(tmp_path / "run")
    (workdir / "report_test.csv").write_text(
        f"class,images,correct,predicted,top1,precision,f1\nshirt{f',{value}' * 6}\n"
    )
    page = page_of(tmp_path, workdir)
    assert page.row("shirt")["images"] == value and page.row("run")["test top-1"] == "70.00"


@pytest.mark.parametrize(
    ("segments", "state", "time"),
    [
        ([segment(to_step=20)], "stopped at step 20 of 40", "1 min 40 s"),
        ([segment(to_step=20, ended=None)], "running or killed at step 20 of 40, last seen 2026-01-31 12:01 UTC",
         "1 min 40 s"),
        ([segment(to_step=20), segment(from_step=20, to_step=30, started="2026-01-31T12:01:00+00:00")],
         "stopped at step 30 of 40", "2 min 20 s"),
        ([segment(from_step=5, to_step=30)], "stopped at step 30 of 40", "–"),
        ([segment()], "step 40 of 40 is done, but its final evaluation is missing", "1 min 40 s"),
    ],
)  # fmt: skip
def test_a_run_that_is_not_complete_says_how_far_it_is(tmp_path, segments, state, time):
    workdir = pretrained(tmp_path / "run", lines=0)
    (workdir / "summary.json").unlink()
    (workdir / "metrics.jsonl").write_text('{"step": 10, "epoch": 0.5, "validation_loss": 0.5}\n{"step": 20, "lo')
    write_json(workdir / "environment.json", {"segments": segments})
    row = page_of(tmp_path, workdir).row("run")
    assert row["state"] == state and row.get("time", "–") == time
    assert float(row["validation loss"]) == 0.5


def test_runs_of_one_name_are_told_apart_and_one_that_comes_twice_is_shown_once(tmp_path):
    folders = [pretrained(tmp_path / one / "run", lines=0) for one in "ab"]
    page = page_of(tmp_path, *folders, f"{folders[0]}/../run")
    assert page.row("a/run") and page.row("b/run") and len(page.tables[0]) == 3


def test_runs_and_page_may_be_at_urls(tmp_path):
    """A page of runs at URLs has the figures, pictures and links of one of the same runs in local folders."""
    pretrained(tmp_path / "first")
    finetuned(tmp_path / "tuned", start=tmp_path / "first")
    with ram_urls():
        url = as_path(f"ram://report/{tmp_path.name}")
        for path in filter(pathlib.Path.is_file, tmp_path.rglob("*")):
            target = url / path.relative_to(tmp_path).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes().replace(str(tmp_path).encode(), str(url).encode()))
        with pytest.raises(
            UserError, match=f"not the workdir of a run.*There are runs below it: {url}/first {url}/tuned"
        ):
            write_report([str(url)], f"{url}/page.html")
        assert write_report([f"{url}/first", f"{url}/tuned/", f"{url}/first"], f"{url}/page.html") == []
        page = Page((url / "page.html").read_text(encoding="utf-8"))
    local = page_of(tmp_path, tmp_path / "first", tmp_path / "tuned")
    assert page.tables[:2] == local.tables[:2] and page.row("tuned")["starts from"].strip() == "first"
    assert [one for one in page.attributes if one[0] == "src"] == [one for one in local.attributes if one[0] == "src"]


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    run = pretrained(tmp_path / "runs" / "one", lines=0)
    for path, message in {
        tmp_path / "nowhere": "There is no folder .*nowhere",
        run / "config.json": "config.json is not a folder",
        tmp_path / "runs": f"not the workdir of a run.*There are runs below it: {run}",
    }.items():
        with pytest.raises(UserError, match=message):
            write_report([path], tmp_path / "page.html")
    with pytest.raises(UserError, match="is a folder: name a file"):
        write_report([run], tmp_path)
    with pytest.raises(UserError, match="cannot be written: File exists"):
        write_report([run], run / "config.json" / "page.html")
    assert not (tmp_path / "page.html").exists()
