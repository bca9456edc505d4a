"""The benchmark of training steps, from its flags to its table and its file."""

import dataclasses
import json
import math
import re
import sys

import pytest

from experiments.benchmarks.flops import step_flops
from experiments.config import Config
from tests.launch.commands import PRESET, run_forked

BATCH, ROUNDS, STEPS = 2, 3, 2


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmark") / "step.json"


@pytest.fixture(scope="module")
def outcome(file):
    """How `launch.benchmark` ended on a preset with a model of one block, whose images make four patches."""
    preset = file.with_name("preset.py")
    preset.write_text(PRESET, encoding="utf-8")
    model = [f"--config={preset}", "--config.model.decoder_dim=4", "--image_size=16", f"--batch_size={BATCH}"]
    length = [f"--rounds={ROUNDS}", f"--steps={STEPS}"]
    return run_forked({0: ("benchmark", ["--what=step", *model, *length, "--mask_ratio=0", f"--json={file}"])})[0]


@pytest.fixture(scope="module")
def table(outcome, file):
    assert outcome.code == 0, outcome.errors
    (table,) = json.loads(file.read_text(encoding="utf-8"))["tables"]
    return table


def test_the_table_shows_each_candidate_and_how_they_compare(outcome, table):
    assert outcome.errors == ""
    assert "mask ratio 0.25: 1 of 4 patches masked (without a masked patch there is no loss)" in outcome.lines
    assert len([line for line in outcome.lines if re.fullmatch(r"  \w+: first step after .* s, on CPU", line)]) == 2
    for name, figures in table["candidates"].items():
        (line,) = [line for line in outcome.lines if re.match(rf"  {name} .*%", line)]
        assert line.split()[1] == f"{figures['images_per_second']['median']:,.2f}"
    ratio = table["ratios"]["sparse/dense"]
    times = f"{ratio['median']:.2f} ({ratio['smallest']:.2f} - {ratio['largest']:.2f})"
    assert f"  sparse is {times} times as fast as dense" in outcome.lines


def test_the_file_has_settings_and_circumstances(outcome, file):
    results = json.loads(file.read_text(encoding="utf-8"))
    assert results["what"] == "step"
    assert results["settings"]["rounds"] == ROUNDS
    config = Config.from_dict(results["settings"]["config"])
    # From the preset, but for what flags say.
    assert config.model.stages == ((1,), (4,)) and config.model.stem_stride == 8 and config.data.channels == 1
    assert (config.model.decoder_dim, config.data.image_size, config.pretrain.batch_size) == (4, 16, BATCH)
    assert results["hardware"]["cpu"] and results["hardware"]["cores"] >= 1
    assert results["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"keras", "tensorflow", "numpy"} <= set(results["versions"])
    assert {"commit", "uncommitted_changes", "time"} <= set(results)


def test_ratio_zero_is_timed_with_one_hidden_patch(table):
    assert table["requested_mask_ratio"] == 0.0 and table["mask_ratio"] == 0.25
    assert (table["num_patches"], table["num_visible"]) == (4, 3)


def test_figures_follow_from_the_rounds(table, file):
    config = Config.from_dict(json.loads(file.read_text(encoding="utf-8"))["settings"]["config"])
    config = dataclasses.replace(config, pretrain=dataclasses.replace(config.pretrain, mask_ratio=0.25))
    for name, figures in table["candidates"].items():
        seconds = figures["seconds_per_step"]
        assert len(seconds["rounds"]) == ROUNDS and sorted(seconds["rounds"])[1] == pytest.approx(seconds["median"])
        assert figures["images_per_second"]["median"] == pytest.approx(BATCH / seconds["median"])
        flops = sum(step_flops(config, name).values())
        assert figures["flops_per_step"]["total"] == flops
        assert figures["flops_per_second"] == pytest.approx(flops / seconds["median"])
        share = figures["flops_per_second"] / table["matrix_product_flops_per_second"]
        assert figures["share_of_matrix_product"] == pytest.approx(share)
        assert len(figures["others_cores"]) == ROUNDS
    rounds = {name: figures["seconds_per_step"]["rounds"] for name, figures in table["candidates"].items()}
    ratios = [dense / sparse for sparse, dense in zip(rounds["sparse"], rounds["dense"])]
    assert table["ratios"]["sparse/dense"]["rounds"] == pytest.approx(ratios)


def test_candidates_compute_the_same(table):
    sparse, dense = table["candidates"]["sparse"], table["candidates"]["dense"]
    assert math.isfinite(sparse["first_loss"])
    assert sparse["first_loss"] == pytest.approx(dense["first_loss"], rel=1e-5)
    assert sparse["last_loss"] == pytest.approx(dense["last_loss"], rel=1e-5)


def test_memory_is_that_of_the_candidate_alone(table):
    for figures in table["candidates"].values():
        memory = figures["memory"]
        assert memory["device_peak"] is None
        before, peak = memory["resident_before_first_step"], memory["resident_peak"]
        assert 2**24 < memory["resident_after_import"] <= before <= peak < 2**34


def test_the_largest_batch_is_searched_within_the_limit(tmp_path):
    preset = tmp_path / "preset.py"
    preset.write_text(PRESET, encoding="utf-8")
    model = [f"--config={preset}", "--image_size=16", "--batch_size=1", "--candidates=sparse"]
    outcome = run_forked({0: ("benchmark", ["--what=memory", *model, "--memory_limit=0.1"])})[0]
    # The process alone takes more than 100 MiB, and how much that was is told.
    (line,) = [line for line in outcome.lines if line.startswith("  batch ")]
    assert outcome.code == 2 and 100 < float(line.split()[2].replace(",", "")) < 2**14
    assert outcome.errors.startswith("error: Not even a batch of one image fits: ")
