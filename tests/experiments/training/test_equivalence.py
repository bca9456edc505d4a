"""Whatever the number of devices and of accumulation steps: the same losses and the same weights."""

import csv

import keras
import numpy as np
import pytest
from PIL import Image

from experiments import finetune, pretrain
from experiments.training.loggers import read_metrics
from tests.experiments.tiny import Lines, change, picture_config

pytestmark = pytest.mark.figures("augmentation")

STEPS, CLIP_NORM = 10, 0.02
TRAINING = {"steps": STEPS, "clip_norm": CLIP_NORM, "base_learning_rate": 0.02, "crop_scale": (0.5, 1.0)}
AUGMENTATION = {
    "randaugment_magnitude": 9.0,
    "erasing_probability": 0.25,
    "mixup_alpha": 0.8,
    "cutmix_alpha": 1.0,
    "label_smoothing": 0.1,
}
RATES = {"layer_decay": 0.5, "ema_decay": 0.7, "class_weights": "balanced"}
TASKS = {"pretrain": (pretrain, "fcmae.keras"), "finetune": (finetune, "classifier.keras")}
WAYS = {
    "one": ({}, 1),
    "accumulated in 4": ({}, 4),
    "two devices, accumulated in 2": ({"logical_cpus": 2}, 2),
}


@pytest.fixture(scope="module")
def runs(pictures, tmp_path_factory):
    """Runs on demand and remembers: from (task, way) to the workdir and its lines."""
    done = {}

    def run(task, way):
        if (task, way) not in done:
            arguments, accumulation_steps = WAYS[way]
            config = picture_config(
                pictures,
                pretrain=TRAINING,
                finetune={**TRAINING, **AUGMENTATION, **RATES},
                seed=3,
                **arguments,
            )
            config = change(config, task, accumulation_steps=accumulation_steps)
            workdir, lines = tmp_path_factory.mktemp("run") / "w", Lines()
            TASKS[task][0].run(config, workdir, log=lines)
            done[task, way] = workdir, lines
        return done[task, way]

    return run


def weights(workdir, task, name=None):
    model = keras.saving.load_model(workdir / (name or TASKS[task][1]), compile=False)
    return {v.path: np.asarray(v.value) for v in model.weights if "seed_generator" not in v.path}


def column(workdir, name):
    return np.array([line[name] for line in read_metrics(workdir) if name in line])


@pytest.mark.parametrize(
    ("task", "way"),
    [("pretrain", "two devices, accumulated in 2"), ("finetune", "accumulated in 4")],
)
def test_another_way_of_computing_gives_the_same_losses_and_weights(runs, task, way):
    (expected, _), (actual, _) = runs(task, "one"), runs(task, way)
    assert len(column(expected, "loss")) == STEPS
    np.testing.assert_allclose(column(actual, "loss"), column(expected, "loss"), atol=1e-5)
    np.testing.assert_allclose(column(actual, "gradient_norm"), column(expected, "gradient_norm"), rtol=1e-3)
    for file in (TASKS[task][1], *(["classifier_ema.keras"] if task == "finetune" else [])):
        one, other = weights(expected, task, file), weights(actual, task, file)
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_allclose(other[name], one[name], atol=1e-5, err_msg=f"{file}: {name}")


@pytest.mark.parametrize("task", TASKS)
def test_the_runs_clip_and_move(runs, task):
    workdir, _ = runs(task, "one")
    assert (column(workdir, "gradient_norm") > CLIP_NORM).all()
    with open(workdir / "parameters.csv", encoding="utf-8") as file:
        paths = [row["variable"] for row in csv.DictReader(file)]
    after = weights(workdir, task)
    moved = [after[path] for path in paths if path.endswith(("/beta", "/bias"))]
    # All of them begin at zero.
    assert len(moved) >= 8 and np.mean([np.abs(value).max() > 1e-4 for value in moved]) > 0.8


@pytest.mark.parametrize(
    ("way", "words"), [("one", "1 x CPU, float32"), ("two devices, accumulated in 2", "2 x CPU, mirrored, float32")]
)
def test_a_run_says_on_which_devices_it_works(runs, way, words):
    assert f"  devices       {words}" in runs("pretrain", way)[1]


def test_fine_tuning_leaves_a_picture_of_its_augmentation(runs):
    pixels = np.asarray(Image.open(runs("finetune", "one")[0] / "augmentation.png").convert("L"))
    assert min(pixels.shape) > 500 and pixels.std() > 20
