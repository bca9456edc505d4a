"""The benchmark of the input pipeline, from its flags to its table and its file."""

import json
import os
import re

import pytest

from tests.launch.commands import run_forked

BATCH, STEPS, ROUNDS = 4, 2, 2
NAMES = ["pillow", "pillow_normalize", "pretraining"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark") / "input.json"


@pytest.fixture(scope="module")
def outcome(file):
    """How `launch.benchmark` ended on eight files."""
    length = [f"--batch_size={BATCH}", f"--steps={STEPS}", f"--rounds={ROUNDS}", "--warmup=1", "--files=8"]
    images = ["--image_size=32", "--stages=pretraining"]
    return run_forked({0: ("benchmark", ["--what=input", *images, *length, f"--json={file}"])})[0]


@pytest.fixture(scope="module")
def results(outcome, file):
    assert outcome.code == 0, outcome.errors
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_table_shows_each_candidate(outcome, results):
    assert outcome.errors == ""
    assert "  files     8 JPEG files of 375x500, " in outcome.output
    for name, figures in results["candidates"].items():
        (line,) = [line for line in outcome.lines if re.match(rf"  {name} +\d", line)]
        assert line.split()[1] == f"{figures['images_per_second']['median']:,.1f}"
        ratio = figures["times_as_fast"]["pillow"]
        assert f" {ratio['median']:.2f} ({ratio['smallest']:.2f} - {ratio['largest']:.2f})" in line


def test_the_file_has_figures_of_every_round_settings_and_circumstances(results):
    assert results["what"] == "input" and results["settings"]["files"] == 8
    assert list(results["candidates"]) == NAMES
    for figures in results["candidates"].values():
        assert len(figures["images_per_second"]["rounds"]) == len(figures["others_cores"]) == ROUNDS
        assert figures["images_per_second"]["smallest"] > 1.0
    assert results["cores"] == len(os.sched_getaffinity(0))
    assert results["candidates"]["pillow"]["times_as_fast"]["pillow"]["median"] == 1.0
    assert {"commit", "uncommitted_changes", "time", "hardware", "versions"} <= set(results)
    assert "pillow" in results["versions"]
