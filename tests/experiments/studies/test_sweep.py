"""A study: its order and how it resumes, with runs that only pretend to train; its trials, with runs of two steps."""

import dataclasses
import io
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from experiments import finetune, pretrain
from experiments.config import Config
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import MemorySplit
from experiments.data.sources import open_source
from experiments.data.splits import label_subset
from experiments.errors import Interrupted, RunError, UserError
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.probes import knn_top1, linear_top1
from experiments.provenance import provenance
from experiments.studies import STUDIES, sweep
from experiments.studies.budgets import Budget, Length
from experiments.training.schedule import Schedule
from experiments.training.workdir import read_json, write_json
from tests.experiments.tiny import Lines, change, tiny_config

CONFIG = tiny_config()
LENGTH = Length("20", 2, 10, rates=(1e-3, 3e-3))
BUDGET = Budget(pretraining_steps=2, few=(LENGTH,), more_rates=0)
FINETUNED = [f"seed_0/labels_20/{start}/rate_{rate:g}" for start in ("pretrained", "scratch") for rate in LENGTH.rates]
TESTED = [FINETUNED[1], FINETUNED[2]]  # higher rates are better for the pretrained, lower ones from scratch
PROVENANCE = provenance()
PROBED = [f"seed_0/labels_20/probes/{encoder}" for encoder in ("pretrained", "random")]
ALL = ["seed_0/pretraining", *FINETUNED, *TESTED, *PROBED]


class Pretence:
    """Notes what would run, and writes what a run leaves: the figures are its rate's, with a sign by its start.

    Args:
        root: folder of the study.
        stop_at: number of the run that is stopped; 0 for none.
        draws: whether the report has its picture.
    """

    def __init__(self, root, monkeypatch, stop_at=0, draws=False):
        self.runs = []
        self._root, self._stop_at = root, stop_at
        monkeypatch.setattr(sweep, "provenance", lambda: PROVENANCE)  # asking git takes time
        monkeypatch.setattr(sweep.gc, "collect", lambda: 0)  # nothing has filled the memory
        if not draws:
            monkeypatch.setattr(STUDIES["fewer_labels"], "draw", lambda study, results, path: path.touch())
        monkeypatch.setattr(pretrain, "run", self._train)
        monkeypatch.setattr(finetune, "run", self._train)
        monkeypatch.setattr(
            "experiments.studies.study._test",
            lambda trial, log: self._write(trial.folder / "test.json", test_top1=80.0),
        )
        monkeypatch.setattr(
            "experiments.studies.study._probe",
            lambda trial, log, **arguments: self._write(trial.folder / "probes.json", knn=70.0, linear=75.0),
        )

    def _train(self, config, workdir, log):
        if len(self.runs) + 1 == self._stop_at:
            self.runs.append(str(workdir.relative_to(self._root)))
            raise Interrupted("Stopped.")
        rate = Schedule.of(config.finetune, 20).peak_learning_rate
        self._write(workdir / "summary.json", validation_top1=50 + 1000 * rate * (1 if config.pretrained else -1))

    def _write(self, path, **values):
        self.runs.append(str(path.parent.relative_to(self._root)))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, values)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "study"


def opened(root, config=CONFIG, num_seeds=1):
    return sweep.open_study(STUDIES, root, "fewer_labels", config, BUDGET, num_seeds)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """The folder of a study that is complete."""
    root = tmp_path_factory.mktemp("complete") / "study"
    with pytest.MonkeyPatch.context() as monkeypatch:
        Pretence(root, monkeypatch, draws=True)
        sweep.run(opened(root), log=Lines())
    return root


def test_what_is_complete_is_not_repeated_and_what_was_stopped_goes_on(root, monkeypatch):
    before = Pretence(root, monkeypatch, stop_at=3)
    with pytest.raises(Interrupted):
        sweep.run(opened(root), log=Lines())
    assert before.runs == ALL[:3]
    assert (root / "results.json").is_file()
    after = Pretence(root, monkeypatch)
    sweep.run(opened(root), log=Lines())
    assert after.runs == ALL[2:]
    assert len(read_json(root / "study.json")["sessions"]) == 2


def test_a_complete_study_runs_nothing_and_makes_the_same_report(complete, monkeypatch):
    before = {name: (complete / name).read_bytes() for name in ("results.json", "results.md", "results.png")}
    again = Pretence(complete, monkeypatch, draws=True)
    sweep.report(sweep.open_study(STUDIES, complete), log=Lines())
    assert {name: (complete / name).read_bytes() for name in before} == before
    sweep.run(opened(complete), log=Lines())
    assert again.runs == []


def test_the_test_images_are_read_of_the_chosen_rates_alone(complete):
    assert sorted(str(path.parent.relative_to(complete)) for path in complete.rglob("test.json")) == sorted(TESTED)
    assert read_json(complete / "results.json")["rows"][0]["rates"]["scratch"]["chosen"] == 1e-3


def test_the_plan_says_what_is_done_and_what_is_left(complete):
    lines = Lines()
    sweep.plan(opened(complete), lines)
    assert [line.split()[1] for line in lines[:-1]] == ALL and all(line.endswith("complete") for line in lines[:-1])
    assert lines[-1].startswith("9 trials, 9 complete; about 0 minutes left at pretrain ")
    lines = Lines()
    sweep.plan(opened(complete, num_seeds=2), lines)
    left = [line.split()[:2] for line in lines[:-1] if not line.endswith("complete")]
    assert ["pretrain", "seed_1/pretraining"] in left and len(left) == 7


def test_only_what_is_asked_for_is_run_and_only_when_its_time_has_come(root, monkeypatch):
    pretence = Pretence(root, monkeypatch)
    sweep.run(opened(root), only="*/pretrained/*", log=Lines())  # waits for the encoder
    assert pretence.runs == []
    sweep.run(opened(root), only="seed_0/pretraining", log=Lines())
    sweep.run(opened(root), only="*/pretrained/*", log=Lines())
    assert pretence.runs == [ALL[0], *FINETUNED[:2], TESTED[0]]


def test_a_run_that_diverges_stops_no_other(root, monkeypatch):
    def fail(config, workdir, log):
        if config.finetune.base_learning_rate > 0.05:  # peak rate 0.003, batch 10
            workdir.mkdir(parents=True)
            if diverges:
                write_json(workdir / "nonfinite.json", {"step": 1})
            raise RunError("The run cannot go on.")
        pretence(config, workdir, log)

    Pretence(root, monkeypatch)
    pretence = finetune.run
    monkeypatch.setattr(finetune, "run", fail)
    diverges = False
    with pytest.raises(RunError):
        sweep.run(opened(root), log=Lines())
    shutil.rmtree(root / FINETUNED[1])
    diverges = True
    sweep.run(opened(root), log=Lines())
    rates = read_json(root / "results.json")["rows"][0]["rates"]
    assert rates["pretrained"]["tried"] == {"0.001": 51.0, "0.003": 0.0}
    assert rates["pretrained"]["chosen"] == 1e-3
    assert not (root / FINETUNED[1] / "test.json").exists()


def test_a_folder_of_another_study_is_refused(complete):
    with pytest.raises(UserError, match="holds a study of another config: name another --workdir"):
        opened(complete, change(CONFIG, "pretrain", mask_ratio=0.5))
    with pytest.raises(UserError, match="holds a study of another name and budget"):
        sweep.open_study(STUDIES, complete, "ablations", CONFIG, "tiny")
    with pytest.raises(UserError, match="holds no study"):
        sweep.open_study(STUDIES, complete / "nothing")


def test_a_study_goes_on_with_more_numbers_of_labels(root, monkeypatch):
    Pretence(root, monkeypatch)
    sweep.run(opened(root), log=Lines())
    more = dataclasses.replace(BUDGET, many=(dataclasses.replace(LENGTH, labels="30"),))
    after = Pretence(root, monkeypatch)
    sweep.run(sweep.open_study(STUDIES, root, "fewer_labels", CONFIG, more, 1), log=Lines())
    assert after.runs == [name.replace("labels_20", "labels_30") for name in ALL[1:]]
    with pytest.raises(UserError, match="holds a study of another budget"):
        opened(root)
    with pytest.raises(UserError, match="holds a study of another budget"):
        sweep.open_study(STUDIES, root, "fewer_labels", CONFIG, dataclasses.replace(more, more_rates=1), 1)


def test_a_study_from_before_there_was_a_field_goes_on(complete, tmp_path):
    record = read_json(complete / "study.json")
    del record["settings"]["config"]["evaluation_batch_size"]
    write_json(tmp_path / "study.json", record)
    assert opened(tmp_path) == dataclasses.replace(opened(complete), root=tmp_path)


# Trials that train.

ONE_RATE = Budget(pretraining_steps=2, few=(Length("20", 2, 10, rates=(3e-3,)),), more_rates=0)
START = "seed_0/labels_20/{}/rate_0.003"


class Sealed(MemorySplit):
    """Images that must not be read."""

    def in_order(self):
        raise AssertionError("the test images were read")

    def shuffled(self, *arguments):
        self.in_order()


def open_sealed(config):
    """Opens a source whose test images must not be read."""
    source = open_source(config)
    test = source.split("test")
    return dataclasses.replace(source, splits={**source.splits, "test": Sealed(test.contents, test.labels)})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study that is complete, and in which nothing that trains could read the test images."""
    study = sweep.open_study(STUDIES, tmp_path_factory.mktemp("study"), "fewer_labels", CONFIG, ONE_RATE, num_seeds=1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (pretrain, finetune):
            monkeypatch.setattr(module, "open_source", open_sealed)
        sweep.run(study, log=Lines())
    return study


def test_training_and_choosing_read_no_test_image(study):
    for start in ("pretrained", "scratch"):
        folder = study.root / START.format(start)
        summary = read_json(folder / "summary.json")
        assert "validation_top1" in summary and not any("test" in name for name in summary)
        assert (folder / "report_validation.csv").exists() and not (folder / "report_test.csv").exists()


def test_the_figure_is_the_share_of_right_test_images_of_the_saved_classifier(study):
    folder = study.root / START.format("pretrained")
    classifier = keras.saving.load_model(folder / "classifier.keras")
    split = open_source(CONFIG.data).split("test")
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(content)), "float32") for content in split.contents])
    images = (pixels[..., np.newaxis] / 255.0 - CONFIG.data.mean[0]) / CONFIG.data.std[0]
    right = np.argmax(classifier(images), axis=-1) == split.labels
    record = read_json(folder / "test.json")
    assert record == {"test_top1": pytest.approx(100 * right.mean()), "images": 539}
    assert read_json(study.root / "results.json")["rows"][0]["finetuned"]["pretrained"]["mean"] == record["test_top1"]


def test_a_run_comes_to_the_same_alone(study, tmp_path):
    folder = study.root / START.format("scratch")
    config = Config.from_dict(read_json(folder / "config.json")["config"])
    finetune.run(config, tmp_path / "alone", log=Lines())
    one, other = (keras.saving.load_model(f / "classifier.keras").get_weights() for f in (folder, tmp_path / "alone"))
    for value, expected in zip(one, other, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_probes_are_those_of_the_encoder_with_the_labels_of_fine_tuning(study):
    pretrained, random = (read_json(study.root / folder / "probes.json") for folder in PROBED)
    source = open_source(CONFIG.data)
    encoder = keras.saving.load_model(study.root / "seed_0/pretraining/encoder.keras")
    features_of = PooledFeatures(encoder, Preprocessing.of(CONFIG.data), 100)
    train = features_of(label_subset(source.split("train"), "20", 10, 0))
    validation, test = (features_of(source.split(name)) for name in ("validation", "test"))
    assert len(train[1]) == 20
    assert (pretrained["target"], pretrained["labels"]) == ("test", "20")
    assert pretrained["knn"] == pytest.approx(knn_top1(train, test), abs=0.4)
    assert pretrained["linear"] == pytest.approx(linear_top1(train, validation, test), abs=0.4)
    assert (random["knn"], random["linear"]) != (pretrained["knn"], pretrained["linear"])
