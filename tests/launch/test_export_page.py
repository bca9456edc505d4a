"""The commands in docs/export.md exist, and so do their flags and what they are said to write."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m launch\.(\w+) (.*)$", PAGE, re.MULTILINE)


def test_there_are_commands_of_all_three():
    assert {name for name, _ in COMMANDS} == {"export", "extract", "search"}


@pytest.mark.parametrize(("name", "flags"), COMMANDS)
def test_flags_exist(name, flags):
    source = (ROOT / "launch" / f"{name}.py").read_text(encoding="utf-8")
    defined = re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source)
    assert set(re.findall(r"--(\w+)=", flags)) <= set(defined)


def test_the_table_of_flags_is_whole():
    source = (ROOT / "launch" / "export.py").read_text(encoding="utf-8")
    named = set(re.findall(r"`--(\w+)`", PAGE))
    assert set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source)) - {"output"} <= named
