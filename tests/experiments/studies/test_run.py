"""A whole study on digits, of runs of two steps."""

import dataclasses

import keras
import numpy as np
import pytest

from experiments import finetune, pretrain
from experiments.data.source import MemorySplit
from experiments.data.sources import open_source
from experiments.errors import Interrupted, RunError, UserError
from experiments.evaluation.classification import TopOne
from experiments.studies import run as studies
from experiments.studies.budgets import Budget, Length
from experiments.training.workdir import read_json
from tests.experiments.tiny import Lines, change, tiny_config

CONFIG = tiny_config(model={"depths": (1,), "dims": (4,), "stem_stride": 8})
LENGTH = Length("20", 2, 10, rates=(1e-3, 3e-3))
BUDGET = Budget(pretraining_steps=2, few=(LENGTH,), more_rates=0)
FINETUNED = [f"seed_0/labels_20/{start}/rate_{rate:g}" for start in ("pretrained", "scratch") for rate in LENGTH.rates]


class Sealed(MemorySplit):
    """Images that must not be read."""

    def in_order(self):
        raise AssertionError("the test images were read")


@dataclasses.dataclass
class Watch:
    """Counts the runs, seals the test images while something trains, and stops one of the runs."""

    runs: list
    stop_at: int = 0

    def wrap(self, run, module, monkeypatch):
        def watched(config, workdir, **arguments):
            self.runs.append(str(workdir))
            if len(self.runs) == self.stop_at:
                raise Interrupted("Stopped.")
            return run(config, workdir, **arguments)

        def sealed(config):
            source = open_source(config)
            test = source.split("test")
            return dataclasses.replace(source, splits={**source.splits, "test": Sealed(test.contents, test.labels)})

        monkeypatch.setattr(module, "run", watched)
        monkeypatch.setattr(module, "open_source", sealed)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study that was stopped in its third run and then went on: `(study, runs before, runs after, lines)`."""
    lines, before, after = Lines(), [], []
    root = tmp_path_factory.mktemp("study") / "study"
    with pytest.MonkeyPatch.context() as monkeypatch:
        watch = Watch(before, stop_at=3)
        for module in (pretrain, finetune):
            watch.wrap(module.run, module, monkeypatch)
        with pytest.raises(Interrupted):
            studies.run(opened(root), say=lines)
        assert (root / "results.json").is_file()
        watch.runs, watch.stop_at = after, 0
        studies.run(opened(root), say=lines)
    return opened(root), names(before, root), names(after, root), lines


def opened(root, config=CONFIG, **arguments):
    return studies.open_study("fewer_labels", config, root, BUDGET, **{"num_seeds": 1, **arguments})


def names(folders, root):
    return [folder.removeprefix(f"{root}/") for folder in folders]


def test_what_is_complete_is_not_repeated_and_what_was_stopped_goes_on(study):
    _, before, after, _ = study
    assert before == ["seed_0/pretraining", *FINETUNED[:2]]
    assert after == FINETUNED[1:]


def test_a_complete_study_runs_nothing_and_makes_the_same_report(study, monkeypatch):
    root = study[0].root
    before = {name: (root / name).read_bytes() for name in ("results.md", "results.png")}
    for module in (pretrain, finetune):
        monkeypatch.setattr(module, "run", None)
    studies.report(studies.reopen_study(root), say=Lines())
    assert {name: (root / name).read_bytes() for name in before} == before


def test_the_test_images_are_read_of_the_chosen_rates_alone(study):
    root = study[0].root
    rows = read_json(root / "results.json")["rows"]
    for start in ("pretrained", "scratch"):
        summaries = {
            rate: read_json(root / f"seed_0/labels_20/{start}/rate_{rate:g}/summary.json") for rate in LENGTH.rates
        }
        assert not any("test" in name for summary in summaries.values() for name in summary)
        chosen = max(LENGTH.rates, key=lambda rate: (summaries[rate]["validation_top1"], -rate))
        tested = [path.parent.name for path in (root / "seed_0/labels_20" / start).glob("*/test.json")]
        assert tested == [f"rate_{chosen:g}"] and rows[0]["rates"][start]["chosen"] == chosen


def test_the_figure_is_that_of_the_saved_classifier_on_the_test_images(study):
    root = study[0].root
    (path,) = (root / "seed_0/labels_20/pretrained").glob("*/test.json")
    classifier = keras.saving.load_model(path.parent / "classifier.keras")
    split = open_source(CONFIG.data).split("test")
    preparation = finetune.prepare_job.__globals__["Preparation"].of(CONFIG.data)
    assert read_json(path)["test_top1"] == TopOne(classifier, split, preparation, 100)()


def test_a_run_comes_to_the_same_alone(study, tmp_path):
    root = study[0].root
    name = FINETUNED[-1]
    trial = next(trial for trial in study[0].trials() if trial.name == name)
    finetune.run(trial.config, tmp_path / "alone", say=Lines())
    one, other = (
        keras.saving.load_model(folder / "classifier.keras").get_weights()
        for folder in (root / name, tmp_path / "alone")
    )
    for value, expected in zip(one, other, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_probes_of_both_encoders_are_on_record(study):
    probes = {e: read_json(study[0].root / f"seed_0/probes/{e}/probes.json") for e in ("pretrained", "random")}
    assert all(figures["target"] == "test" and set(figures["top1"]) == {"20"} for figures in probes.values())
    assert probes["pretrained"]["top1"] != probes["random"]["top1"]


def test_the_plan_says_what_is_done_and_what_is_left(study):
    lines = Lines()
    studies.plan(study[0], lines)
    assert len(lines) == 10 and all(line.endswith("complete") for line in lines[:-1])
    assert lines[-1].startswith("9 trials, 9 complete; about 0 minutes left at pretrain ")
    lines = Lines()
    studies.plan(opened(study[0].root, num_seeds=2), lines)
    left = [line.split()[:2] for line in lines[:-1] if not line.endswith("complete")]
    assert ["pretrain", "seed_1/pretraining"] in left and len(left) == 7


def test_a_run_that_fails_is_on_record_and_stops_no_other(tmp_path, monkeypatch):
    def fail(config, workdir, **_):
        workdir.mkdir(parents=True, exist_ok=True)
        raise RunError("The loss is nan.")

    monkeypatch.setattr(finetune, "run", fail)
    arm = opened(tmp_path)._arm("scratch", LENGTH)
    for trial in arm.searching():
        trial.run(Lines())
        assert read_json(trial.folder / "failed.json") == {"error": "The loss is nan."}
    assert arm.choice.tried == {1e-3: 0.0, 3e-3: 0.0}
    assert arm.final(0).is_complete and not arm.testing(0).is_ready


def test_only_what_is_asked_for_is_run_and_only_when_its_time_has_come(tmp_path):
    lines = Lines()
    root = tmp_path / "study"
    studies.run(opened(root), only="*/pretrained/*", say=lines)  # waits for the encoder
    assert [line for line in lines if line.startswith("fewer_labels: ")] == []
    studies.run(opened(root), only="seed_0/pretraining", say=lines)
    assert [line for line in lines if line.startswith("fewer_labels: ")] == [
        "fewer_labels: pretrain seed_0/pretraining"
    ]


def test_a_folder_of_another_study_is_refused(study):
    root = study[0].root
    with pytest.raises(UserError, match="holds a study of another config: name another --workdir"):
        opened(root, change(CONFIG, "pretrain", mask_ratio=0.5))
    with pytest.raises(UserError, match="holds a study of another name and budget"):
        studies.open_study("ablations", CONFIG, root, "tiny")
    with pytest.raises(UserError, match="holds no study"):
        studies.reopen_study(root / "nothing")
