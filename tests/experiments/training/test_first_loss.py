"""The loss of a run's first step beside NumPy: the right model, batch, masks and targets come together."""

import keras
import numpy as np
import pytest

from experiments import finetune, pretrain
from experiments.data.augmentation.mixing import Mixing
from experiments.data.pipeline import training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import open_source
from experiments.models import make_classifier, make_fcmae
from experiments.training.loggers import read_metrics
from tests import references
from tests.experiments.tiny import Lines, picture_config
from tests.small_models import parts_of, variables_of

TRAINING = {"steps": 1, "batch_size": 8, "crop_scale": (0.4, 1.0)}


def first_batch(config, training, **arguments):
    split, preprocessing = open_source(config.data).split("train"), Preprocessing.of(config.data, training)
    batches = training_batches(split, preprocessing, 8, config.seed, **arguments)
    return next(batches.as_numpy_iterator())


def initial_weights(config, make, variables):
    """The weights that a run of the same seed begins with."""
    keras.utils.set_random_seed(config.seed)
    return {name: np.asarray(variable.value, "float64") for name, variable in variables(make()).items()}


def first_loss(run, config, workdir):
    run(config, workdir, log=Lines())
    return read_metrics(workdir)[0]["loss"]


def test_pretraining_begins_with_the_loss_of_the_reference(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain.Pretraining, "_reconstructions", None)  # of no pictures nothing is prepared
    training = {**TRAINING, "mask_ratio": 0.7, "normalize_targets": False}
    config = picture_config(pictures, pretrain=training, seed=11)
    batch = first_batch(config, config.pretrain, num_patches=16)
    # 4 of 16 patches are visible: those with the smallest noise.
    visible = (batch["noise"].argsort(axis=1).argsort(axis=1) < 4).astype("float64")
    weights = initial_weights(config, lambda: make_fcmae(config), parts_of)
    images = batch["images"].astype("float64")
    latent = references.encode(images, visible.reshape(-1, 4, 4), weights, (1,))
    prediction = references.decode(latent, visible.reshape(-1, 4, 4), references.within(weights, "decoder"))
    expected = references.losses(prediction, references.targets(images, 8, normalize=False), visible).mean()
    assert first_loss(pretrain.run, config, tmp_path) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("mixed", [{}, {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "erasing_probability": 0.5}])
def test_fine_tuning_begins_with_the_cross_entropy_of_the_smoothed_and_mixed_labels(pictures, tmp_path, mixed):
    smoothing = 0.3
    config = picture_config(pictures, finetune={**TRAINING, "label_smoothing": smoothing, **mixed}, seed=12)
    batch = first_batch(config, config.finetune, mixing=Mixing.of(config.finetune, 3))
    weights = initial_weights(config, lambda: make_classifier(config, 3), variables_of)
    logits = references.logits(batch["images"].astype("float64"), weights, (1,))
    log_share = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = np.eye(3)[batch["labels"]] * (1 - smoothing) + smoothing / 3
    is_mixed = np.abs(batch["targets"] - targets).max() > 0.01
    assert is_mixed == bool(mixed)
    expected = -((batch["targets"] if mixed else targets) * log_share).sum(axis=1).mean()
    assert first_loss(finetune.run, config, tmp_path) == pytest.approx(expected, rel=1e-5)
