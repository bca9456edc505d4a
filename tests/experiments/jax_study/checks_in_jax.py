"""Checks of the study in JAX, which `test_in_jax` runs with JAX as the backend of Keras."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.config import Config, DataConfig, FinetuneConfig, ModelConfig, PretrainConfig
from experiments.errors import UserError
from experiments.jax_study import study, training
from experiments.optim.adamw import learning_rate_schedule
from experiments.training.schedule import Schedule

CLASSES, SIDE = 2, 16
CONFIG = Config(
    model=ModelConfig(depths=(1, 1), dims=(4, 8), stem_stride=2, decoder_dim=4),
    data=DataConfig(image_size=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3),
    pretrain=PretrainConfig(
        epochs=5, batch_size=16, warmup_epochs=1.0, base_learning_rate=0.2, crop="resized", mask_ratio=0.5
    ),
    finetune=FinetuneConfig(layer_decay=0.9, drop_path_rate=0.1, label_smoothing=0.1, weight_decay=0.05),
)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Runs of one model share what JAX compiles."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Runs of a few steps, with one rate and one mixing to choose."""
    monkeypatch.setattr(study, "CHUNK", 2)
    monkeypatch.setattr(study, "BATCH_SIZE", 8)
    monkeypatch.setattr(study, "RATES", (1e-3,))
    monkeypatch.setattr(study, "MIXINGS", {"mixed": study.MIXINGS["mixed"]})


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Bright and dark images in the folders of two classes."""
    folder, generator = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 9)):
        for label in range(CLASSES):
            (folder / split / str(label)).mkdir(parents=True)
            for i in range(count):
                wave = np.sin(np.linspace(0, 6, SIDE) + generator.uniform(0, 6))[:, None, None]
                pixels = np.broadcast_to(60 + 50 * wave + 120 * label, (SIDE, SIDE, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / str(label) / f"{i:02}.png")
    return study.read_folder(str(folder), 0.25)


def test_a_folder_is_read_in_order_and_validation_images_are_held_out(splits):
    assert {name: split.num_examples for name, split in splits.items()} == {"train": 60, "validation": 20, "test": 18}
    assert splits["test"].labels.tolist() == [0] * 9 + [1] * 9
    for split in splits.values():
        assert np.array_equal(split.images.mean((1, 2, 3)) > 120, split.labels == 1)


def test_images_of_two_sizes_or_none_are_an_error(tmp_path):
    with pytest.raises(UserError, match="has no images"):
        study.read_folder(str(tmp_path), 0.1)
    (tmp_path / "train" / "a").mkdir(parents=True)
    for side in (8, 9):
        Image.new("RGB", (side, side)).save(tmp_path / "train" / "a" / f"{side}.png")
    with pytest.raises(UserError, match="several sizes"):
        study.read_folder(str(tmp_path), 0.1)


def test_pretraining_that_was_cut_off_ends_as_one_that_was_not(splits, tmp_path):
    def read(root):
        record = json.loads((root / "seed_3" / "pretraining" / "record.json").read_text("utf-8"))
        with np.load(root / "seed_3" / "pretraining" / "state.npz") as state:
            return record["curve"], {name: state[name] for name in state.files if name != "curve"}

    lines = []
    study.JaxStudy(CONFIG, splits, tmp_path / "whole", lines.append).pretrain(3)

    def stop(line, seen=[]):  # noqa: B006  lives as long as this test
        seen.append(line)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.JaxStudy(CONFIG, splits, tmp_path / "cut", stop).pretrain(3)
    study.JaxStudy(CONFIG, splits, tmp_path / "cut", lines.append).pretrain(3)
    (curve, state), (curve_of_cut, state_of_cut) = read(tmp_path / "whole"), read(tmp_path / "cut")
    assert curve == curve_of_cut and [point["step"] for point in curve][-1] == state["step"] > 10
    assert all(np.array_equal(state[name], state_of_cut[name]) for name in state)
    assert curve[-1]["loss"] < curve[1]["loss"]
    count = len(lines)
    study.JaxStudy(CONFIG, splits, tmp_path / "cut", lines.append).pretrain(3)  # complete: not repeated
    assert len(lines) == count


def test_fine_tuning_chooses_on_validation_and_reads_the_test_once(splits, tmp_path):
    config = dataclasses.replace(CONFIG, pretrain=dataclasses.replace(CONFIG.pretrain, epochs=1, warmup_epochs=0.0))
    runs = study.JaxStudy(config, splits, tmp_path, lambda line: None)
    for seed in range(2):
        runs.pretrain(seed)
    chosen = {}
    for start in study.STARTS:
        runs.finetune(study.Lengths(20, (4, 8), num_seeds=2), start)
        records = {path.name: json.loads(path.read_text("utf-8")) for path in tmp_path.glob(f"labels_20/{start}/*")}
        tests = {name: record for name, record in records.items() if "test_top1" in record}
        assert sorted(record["seed"] for record in tests.values()) == [0, 1] and all("_test" in name for name in tests)
        best = max(record["validation_top1"] for record in records.values() if record["seed"] == 0)
        chosen[start] = next(record for record in tests.values() if record["seed"] == 0)
        assert chosen[start]["validation_top1"] == best and chosen[start]["labels"] == 20
        for record in tests.values():
            predicted = np.array([*map(int, record["test_predictions"])])
            assert record["test_top1"] == 100.0 * np.mean(predicted == splits["test"].labels)
        assert {record["rate"] for record in records.values()} > {1e-3}  # the best was at an edge: one beyond was tried
    decays = {start: record["config"]["finetune"]["layer_decay"] for start, record in chosen.items()}
    assert decays == {"pretrained": 0.9, "scratch": 1.0}


def test_the_learning_rate_is_that_of_the_schedule():
    schedule = learning_rate_schedule(FinetuneConfig(min_learning_rate=0.01), Schedule(4, 20, 5, 0.3))
    expected = [float(schedule(step)) for step in range(20)]
    np.testing.assert_allclose(training.learning_rates(0.3, 20, 5, 0.01), expected, rtol=1e-5, atol=1e-7)


def test_every_image_comes_once_an_epoch():
    order = training.shuffled(np.arange(10, 17), steps=7, batch_size=3, seed=1)
    assert order.shape == (7, 3)
    for epoch in np.split(order.ravel(), 3):
        assert sorted(epoch) == list(range(10, 17))


@pytest.mark.parametrize("crop", ["padded", "resized"])
def test_views_keep_a_plain_image_and_differ_between_images(crop):
    settings = dataclasses.replace(CONFIG.pretrain, crop=crop, crop_scale=(0.3, 1.0))
    ramp = np.broadcast_to(np.arange(SIDE, dtype=np.uint8)[:, None, None] * 10, (6, SIDE, SIDE, 3))
    views = np.asarray(training._views(jax.random.key(0), ramp, settings))
    assert views.shape == ramp.shape and len({view.tobytes() for view in views}) > 1
    if crop == "padded":
        shifts = [np.flatnonzero(view.any((1, 2)))[0] for view in views]
        assert set(shifts) <= set(range(4)) and views.max() <= 150
    plain = np.full((6, SIDE, SIDE, 3), 77, np.uint8)
    inside = np.asarray(training._views(jax.random.key(1), plain, settings))[:, 2:-2, 2:-2]
    np.testing.assert_allclose(inside, 77.0, atol=1e-3)


@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_targets_are_mixed_by_the_share_of_the_pixels(alphas):
    settings = FinetuneConfig(mixup_alpha=alphas[0], cutmix_alpha=alphas[1])
    images = np.stack([np.full((8, 8, 1), value, np.float32) for value in (0.0, 1.0)])
    targets = np.eye(2, dtype=np.float32)
    shares = []
    for seed in range(8):
        mixed, mixed_targets = training._mixed(jax.random.key(seed), images, targets, settings)
        np.testing.assert_allclose(np.mean(mixed, (1, 2, 3)), mixed_targets[:, 1], atol=1e-6)
        np.testing.assert_allclose(np.sum(mixed_targets, 1), 1.0, atol=1e-6)
        is_cutmix = set(np.unique(mixed).tolist()) <= {0.0, 1.0}
        assert is_cutmix or alphas[0]
        shares.append(float(mixed_targets[0, 0]))
    assert len(set(shares)) > 4
