"""The demonstration on a configuration of a few steps."""

import pathlib
import re

import numpy as np
import pytest

from experiments import demo, evaluate
from experiments.training.workdir import read_json
from tests.experiments.tiny import Lines, tiny_config

pytestmark = pytest.mark.figures("curves")

CONFIG = tiny_config(
    pretrain={"steps": 2, "batch_size": 32, "pictures": 1},
    finetune={"steps": 2, "labels": "32"},
)


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory):
    """`(workdir, table, lines)`."""
    workdir, lines = tmp_path_factory.mktemp("demo"), Lines()
    return workdir, "\n".join(demo.run(workdir, CONFIG, seeds=(0, 1), log=lines)), lines


def row(table, label):
    """The three figures of a row: pretrained, random start, gain."""
    (line,) = [line for line in table.splitlines() if line.startswith(label)]
    return re.findall(r"[+-]?\d+\.\d(?: \+- \d+\.\d)?", line.removeprefix(label))


def test_the_table_holds_mean_and_deviation_over_the_seeds_of_both_arms(demonstration):
    workdir, table, _ = demonstration
    *shown, gain = row(table, "fine-tuned with 32 labels, 2 seeds (mean +- std)")
    top1 = [
        np.array([read_json(workdir / f"{arm}_seed_{seed}" / "summary.json")["test_top1"] for seed in (0, 1)])
        for arm in ("pretrained", "scratch")
    ]
    assert shown == [f"{values.mean():.1f} +- {values.std(ddof=1):.1f}" for values in top1]
    difference = top1[0] - top1[1]
    assert gain == f"{difference.mean():+.1f} +- {difference.std(ddof=1):.1f}"


def test_both_arms_have_the_same_budget_and_labels_and_only_one_is_pretrained(demonstration):
    workdir, _, _ = demonstration
    for seed in (0, 1):
        one, other = (
            read_json(workdir / f"{arm}_seed_{seed}" / "config.json")["config"] for arm in ("pretrained", "scratch")
        )
        assert one.pop("pretrained") == str(workdir / "pretrained") and other.pop("pretrained") == ""
        assert one == other and one["seed"] == seed


def test_the_table_holds_the_probes_of_both_encoders(demonstration):
    """They are those of the evaluation of the run."""
    workdir, table, _ = demonstration
    figures = evaluate.run(workdir / "pretrained", log=Lines())
    for name, label in (("knn", "k-NN"), ("linear", "linear probe")):
        *shown, gain = map(float, row(table, f"{label} on frozen features, 1,078 labels"))
        assert shown == pytest.approx([figures[name]["model"], figures[name]["random"]], abs=0.3)  # of 539 images
        assert gain == pytest.approx(shown[0] - shown[1], abs=0.11)


def test_the_table_says_on_what_its_figures_are_taken(demonstration):
    assert re.search(r"^top-1 on the 539 test images, % +pretrained +random start +gain$", demonstration[1], re.M)


def test_the_named_pictures_exist(demonstration):
    workdir, table, _ = demonstration
    named = dict(re.findall(r"^(reconstructions|curves) +(\S+)$", table, re.M))
    assert named == {
        "reconstructions": str(workdir / "pretrained" / "reconstructions" / "step_00000002.png"),
        "curves": str(workdir / "pretrained" / "curves.png"),
    }
    assert all(pathlib.Path(path).stat().st_size > 1000 for path in named.values())


def test_each_fine_tuning_run_is_reported(demonstration):
    lines = [line for line in demonstration[2] if line.startswith("fine-tuned from")]
    assert [re.sub(r": top-1 .*", "", line).split() for line in lines] == [
        f"fine-tuned from {start} seed {seed}".split()
        for seed in (0, 1)
        for start in ("the pretrained encoder", "scratch")
    ]
