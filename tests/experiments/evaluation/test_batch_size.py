"""How many images evaluation takes at a time: the same number everywhere, and never a training batch."""

import dataclasses

import pytest

from experiments import evaluate, finetune, pretrain
from experiments.config import Config
from experiments.data import pipeline
from experiments.data.sources.digits import open_digits
from experiments.training import pictures
from experiments.training.workdir import check_recorded, read_json, record_config, write_json
from tests.experiments.tiny import Lines, change, tiny_config

SHORT = {"steps": 2, "batch_size": 24, "evaluations": 1}
CONFIG = tiny_config(
    pretrain={**SHORT, "pictures": 1, "probe_every": 1},
    finetune={**SHORT, "labels": "all", "ema_decay": 0.5},
    evaluation_batch_size=3,
)


@pytest.fixture
def taken(monkeypatch):
    """The batch sizes in which evaluation loads images and in which pictures are made; of few images."""
    load_batches, reconstruction_panels = pipeline.load_batches, pictures.reconstruction_panels
    sizes = {"loaded": [], "pictures": []}

    def load(split, examples, load, finish, batch_size, drop_remainder=False):
        if not drop_remainder:
            sizes["loaded"].append(batch_size)
        return load_batches(split, examples, load, finish, batch_size, drop_remainder)

    def draw(model, images, *arguments):
        sizes["pictures"].append(len(images))
        return reconstruction_panels(model, images, *arguments)

    digits = open_digits()
    counts = {"train": 48, "validation": 10, "test": 20}
    parts = {name: digits.split(name).cached("none").take(range(count)) for name, count in counts.items()}
    source = dataclasses.replace(digits, splits=parts)
    monkeypatch.setattr(pipeline, "load_batches", load)
    monkeypatch.setattr(pictures, "reconstruction_panels", draw)
    for module in (pretrain, finetune, evaluate):
        monkeypatch.setattr(module, "open_source", lambda data: source)
    return sizes


def test_every_evaluation_of_a_run_and_after_it_takes_the_evaluation_batch_size(tmp_path, taken):
    pretrain.run(CONFIG, tmp_path / "pretrained", log=Lines())
    assert taken["pictures"] == [3, 3, 2]
    shown = taken["loaded"].index(pretrain.IMAGES_IN_PICTURE)
    taken["loaded"].pop(shown)  # shown to the model in the parts above
    assert set(taken["loaded"]) == {3} and len(taken["loaded"]) >= 5  # loss; two encoders, two splits each
    taken["loaded"].clear()
    finetune.run(CONFIG, tmp_path / "finetuned", log=Lines())
    assert set(taken["loaded"]) == {3} and len(taken["loaded"]) >= 2
    for name, probes in (("pretrained", ()), ("finetuned", ("top1",))):
        for batch_size in (0, 5):
            taken["loaded"].clear()
            evaluate.run(tmp_path / name, probes=probes, batch_size=batch_size, log=Lines())
            assert set(taken["loaded"]) == {batch_size or 3}


@pytest.mark.parametrize(
    ("model", "image_size", "chosen", "expected"),
    [
        ({"variant": "atto"}, 224, 0, 133),  # 56 * 56 positions of 4 * 40 numbers, four times
        ({"variant": "tiny"}, 224, 0, 55),
        ({"variant": "huge"}, 512, 0, 2),
        ({"variant": "huge"}, 2048, 0, 1),
        ({"variant": "atto"}, 64, 0, 256),
        ({"variant": "atto"}, 224, 512, 512),
        ({"variant": "atto"}, 224, 1, 1),
    ],
)
def test_by_default_it_is_what_fits_a_gibibyte_whatever_the_training_batch(model, image_size, chosen, expected):
    config = change(change(Config(), "model", **model), "data", image_size=image_size)
    config = dataclasses.replace(config, evaluation_batch_size=chosen)
    for batch_size in (1, 4096):
        for section in ("pretrain", "finetune"):
            config = change(config, section, batch_size=batch_size)
            assert config.evaluation_batch() == expected


def test_a_run_that_began_before_there_was_such_a_field_goes_on(tmp_path):
    record_config(tmp_path, Config(), "pretrain")
    record = read_json(tmp_path / "config.json")
    del record["config"]["evaluation_batch_size"]
    write_json(tmp_path / "config.json", record)
    assert check_recorded(tmp_path, dataclasses.replace(Config(), evaluation_batch_size=5), "pretrain") == []
