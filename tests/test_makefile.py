"""The part of the suite that `make test-core` and `make test-oldest` run is there."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]


def test_the_core_of_the_suite_names_files_and_folders_that_exist():
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    paths = re.search(r"^CORE := (.*)$", text, re.MULTILINE)[1].split()
    assert len(paths) > 3 and [path for path in paths if not (ROOT / path).exists()] == []
