"""What docs/ says holds: its Python runs, the files it names exist, and its diagrams are sound."""

import pathlib
import re
import xml.etree.ElementTree

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = ("architecture.md", "extending.md")
NAMED = re.compile(r"(?:convnext|fcmae|experiments|launch|tests)/[\w/]+(?:\.py)?")


def text_of(name):
    return (DOCS / name).read_text(encoding="utf-8")


def test_python_of_extending_runs_block_by_block():
    blocks = re.findall(r"^```python\n(.*?)^```", text_of("extending.md"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    names = {"__name__": "extending"}
    for block in blocks:
        exec(compile(block, "docs/extending.md", "exec"), names)
    assert names["get_config"]().data.source == "folder:photographs"


@pytest.mark.parametrize("name", [*PAGES, "packages.svg", "step.svg"])
def test_files_that_are_named_exist(name):
    paths = set(NAMED.findall(text_of(name)))
    assert name == "packages.svg" or len(paths) > 3
    assert [path for path in paths if not (ROOT / path).exists()] == []
    links = re.findall(r"\]\(([\w.]+)\)", text_of(name))
    assert [link for link in links if not (DOCS / link).exists()] == []


def test_packages_of_the_diagram_hold_what_it_lists():
    rows = [
        (float(element.get("x")), element.text, element.get("class"))
        for element in xml.etree.ElementTree.parse(DOCS / "packages.svg").iter("{http://www.w3.org/2000/svg}text")
    ]
    names = {x: text for x, text, kind in rows if kind == "name"}
    assert set(names.values()) == {"convnext", "fcmae", "experiments", "launch"}
    code = [(names[x], text) for x, text, kind in rows if kind == "code"]
    listed = [(package, word) for package, text in code for word in re.findall(r"[a-z]\w+(?:\.py|/)", text)]
    assert len(listed) > 20
    assert [f"{package}/{word}" for package, word in listed if not (ROOT / package / word).exists()] == []
