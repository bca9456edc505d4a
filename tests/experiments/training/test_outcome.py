"""What a pretraining run leaves behind, in its workdir and in Weights & Biases."""

import csv
import dataclasses

import keras
import numpy as np
import pytest
from PIL import Image

from convnext.weights.loader import named_variables
from experiments import finetune, pretrain
from experiments.config import Config, WandbConfig
from experiments.data.pipeline import evaluation_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import open_source
from experiments.errors import UserError
from experiments.training.loggers import read_metrics
from experiments.training.workdir import read_json
from tests import references
from tests.experiments.tiny import TWO_STAGES, Lines, change, tiny_config

pytestmark = pytest.mark.figures("curves")

CONFIG = tiny_config(
    model=TWO_STAGES,
    pretrain={"epochs": 2, "steps": 0, "batch_size": 512, "evaluations": 2, "pictures": 2, "crop_scale": (0.5, 1.0)},
    seed=2,
    log_every=3,
    checkpoint_every=2,
    keep_checkpoints=2,
    wandb=WandbConfig(mode="offline"),
)
STEPS = 4  # 2 epochs of 1078 // 512


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`(workdir, summary, lines)` of a finished run."""
    workdir, lines = tmp_path_factory.mktemp("runs") / "first", Lines()
    return workdir, pretrain.run(CONFIG, workdir, log=lines), lines


def test_the_configuration_is_recorded(run):
    recorded = read_json(run[0] / "config.json")
    assert recorded["task"] == "pretrain"
    assert Config.from_dict(recorded["config"]) == CONFIG


def test_metrics_are_logged_at_their_steps(run):
    lines = read_metrics(run[0])
    assert [(line["step"], line["epoch"]) for line in lines if "loss" in line] == [(3, 1.5), (4, 2.0)]
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 4]
    assert all(0.1 < line["loss"] < 10 and line["images_per_second"] > 0 for line in lines if "loss" in line)
    # The rate of the step that was taken: the cosine begins at 0.1 * 512 / 256.
    expected = [0.2 * 0.5 * (1 + np.cos(np.pi * (step - 1) / STEPS)) for step in (3, 4)]
    np.testing.assert_allclose([line["learning_rate"] for line in lines if "loss" in line], expected, rtol=1e-5)


def test_the_summary_tells_what_was_done(run):
    workdir, summary, _ = run
    assert read_json(workdir / "summary.json") == summary
    assert (summary["task"], summary["steps"], summary["images"]) == ("pretrain", STEPS, 1078)
    assert summary["validation_loss"] == read_metrics(workdir)[-1]["validation_loss"]
    encoder = keras.saving.load_model(workdir / "encoder.keras", compile=False)
    assert summary["encoder_parameters"] == encoder.count_params()


def test_the_encoder_is_the_backbone_of_the_autoencoder(run):
    encoder, fcmae = (keras.saving.load_model(run[0] / name) for name in ("encoder.keras", "fcmae.keras"))
    one, other = named_variables(encoder), named_variables(fcmae.backbone)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(np.asarray(one[name].value), np.asarray(other[name].value), err_msg=name)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype("float32")
    assert np.asarray(encoder.extract_features(images)[-1]).shape == (2, 4, 4, 8)


def test_the_validation_loss_is_that_of_the_saved_autoencoder(run):
    """Within what another draw of the masks makes of it."""
    workdir, summary, _ = run
    fcmae = keras.saving.load_model(workdir / "fcmae.keras")
    split = open_source(CONFIG.data).split("validation")
    (batch,) = evaluation_batches(split, Preprocessing.of(CONFIG.data), split.num_examples).as_numpy_iterator()
    visible = (np.random.default_rng(5).random((180, 16)).argsort(axis=1) < 6).astype("float32")
    prediction = np.asarray(fcmae.predict_patches(batch["images"], visible), "float64")
    targets = references.targets(batch["images"].astype("float64"), 8)
    assert summary["validation_loss"] == pytest.approx(references.losses(prediction, targets, visible).mean(), rel=0.1)


def test_the_rank_of_the_features_is_that_of_the_saved_encoder(run):
    workdir, summary, _ = run
    encoder = keras.saving.load_model(workdir / "encoder.keras")
    split = open_source(CONFIG.data).split("validation")
    (batch,) = evaluation_batches(split, Preprocessing.of(CONFIG.data), split.num_examples).as_numpy_iterator()
    features = np.asarray(encoder.extract_features(batch["images"])[-1], "float64").mean(axis=(1, 2))
    strengths = np.linalg.svd(features, compute_uv=False)
    shares = strengths / strengths.sum()
    assert summary["feature_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
    spread = (features / np.linalg.norm(features, axis=1, keepdims=True)).std(axis=0).mean() * 8**0.5
    assert summary["feature_std"] == pytest.approx(spread, rel=1e-4)


def test_pictures_show_original_masked_and_reconstruction(run):
    names = sorted(path.name for path in (run[0] / "reconstructions").iterdir())
    assert names == ["step_00000002.png", "step_00000004.png"]
    for path in (run[0] / "reconstructions").iterdir():
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 200 and pixels.std() > 20
    assert np.asarray(Image.open(run[0] / "curves.png")).std() > 5


def test_the_newest_checkpoints_are_there(run):
    assert {path.stem for path in (run[0] / "checkpoints").glob("*.index")} == {"ckpt-2", "ckpt-4"}


def test_every_variable_is_listed_with_its_rate_and_decay(run):
    with open(run[0] / "parameters.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    fcmae = keras.saving.load_model(run[0] / "fcmae.keras")
    assert [row["variable"] for row in rows] == [variable.path for variable in fcmae.trainable_variables]
    for row in rows:
        assert float(row["peak_learning_rate"]) == pytest.approx(0.2)
        assert float(row["weight_decay"]) == (0.05 if row["variable"].endswith("kernel") else 0.0)


def test_no_temporary_file_is_left(run):
    assert [path.name for path in run[0].rglob(".*")] == []


def test_a_person_sees_what_the_run_works_on(run):
    workdir, _, lines = run
    for line in (
        "pretrain",
        "  devices       1 x CPU, float32",
        "  dataset       digits, 10 classes",
        "  images        1,078 to train on, as 32x32x1 (validation 180, test 539)",
        f"  steps         {STEPS} (2 epochs of 2), batch 512",
        f"  workdir       {workdir}",
        "  starts from   random weights",
    ):
        assert line in lines
    fcmae = keras.saving.load_model(workdir / "fcmae.keras")
    assert f"  model         fcmae, {fcmae.count_params():,} parameters" in lines
    assert any(line.startswith(f"pretrain  step {STEPS}/{STEPS}  loss ") for line in lines)


def test_an_offline_run_of_wandb_holds_metrics_and_pictures(run):
    (folder,) = (run[0] / "wandb").glob("offline-run-*")
    (record,) = folder.glob("*.wandb")
    content = record.read_bytes()
    for name in (b"validation_loss", b"learning_rate", b"images_per_second", b"reconstructions"):
        assert name in content
    pictures = list((folder / "files" / "media" / "images").glob("reconstructions_*.png"))
    assert len(pictures) == 2


# Starting again in the same folder.


def test_a_finished_run_returns_its_summary_at_once(run, monkeypatch):
    monkeypatch.setattr(pretrain, "open_source", None)  # must not be called
    lines = Lines()
    assert pretrain.run(CONFIG, run[0], log=lines) == run[1]
    assert lines == [f"The run in {run[0]} is complete."]


def test_resume_never_refuses_the_folder(run):
    with pytest.raises(
        UserError, match=f"{run[0]} already holds a run, and --resume=never is set: use another --workdir."
    ):
        pretrain.run(CONFIG, run[0], resume="never", log=Lines())


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        (change(CONFIG, "pretrain", mask_ratio=0.7), r"\(pretrain.mask_ratio was 0.6, now 0.7\)"),
        (change(CONFIG, "model", dims=(4, 12)), r"\(model.dims was \[4, 8\], now \[4, 12\]\)"),
        (dataclasses.replace(CONFIG, seed=3), r"\(seed was 2, now 3\)"),
    ],
)
def test_another_configuration_is_refused_and_the_difference_named(run, config, difference):
    with pytest.raises(UserError, match=f"{run[0]} holds a run with a different configuration .*{difference}"):
        pretrain.run(config, run[0], log=Lines())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("log_every", 7),
        ("checkpoint_every", 9),
        ("checkpoint_minutes", 2.5),
        ("keep_checkpoints", 1),
        ("tensorboard", False),
        ("profile_steps", (1, 2)),
        ("logical_cpus", 2),
        ("evaluation_batch_size", 7),
        ("distribution", "none"),
        ("compile", "none"),
        ("model", dataclasses.replace(CONFIG.model, remat="block")),
        ("pretrain", dataclasses.replace(CONFIG.pretrain, accumulation_steps=2)),
        ("wandb", WandbConfig()),
    ],
)
def test_how_a_run_is_carried_out_may_change(run, field, value):
    config = dataclasses.replace(CONFIG, **{field: value})
    assert config != CONFIG
    assert pretrain.run(config, run[0], log=Lines()) == run[1]


def test_the_other_task_may_be_configured_otherwise_but_needs_its_own_folder(run):
    assert pretrain.run(change(CONFIG, "finetune", epochs=3), run[0], log=Lines()) == run[1]
    with pytest.raises(UserError, match=f"{run[0]} holds a pretrain run: use another --workdir to finetune."):
        finetune.run(CONFIG, run[0], log=Lines())
