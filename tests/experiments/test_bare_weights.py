"""Weights without a run: evaluated, turned into features, searched, exported and fine-tuned from, in a command each."""

import argparse
import dataclasses
import json
import shutil

import numpy as np
import pytest

from convnext import ConvNeXtV2, factory
from convnext.weights import formats, read_weights
from convnext.weights.architecture import Architecture
from convnext.weights.names import to_theirs
from experiments import evaluate, finetune
from experiments.config import IMAGE_SETTINGS
from experiments.errors import UserError
from experiments.evaluation import features
from experiments.inference import export, extract, search
from tests.experiments.images import encode, write
from tests.experiments.tiny import Lines, tiny_config
from tests.small_models import randomize

torch = pytest.importorskip("torch")

SIZES = {"depths": (2, 2, 4), "dims": (8, 16, 24), "stem_stride": 4}
SETTINGS = {**IMAGE_SETTINGS["imagenet"], "image_size": 32}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """As third parties publish them: an entry, a prefix, float16, and a number of NumPy's beside them."""
    model = ConvNeXtV2(**SIZES, input_shape=(32, 32, 3), num_classes=4)
    randomize({variable.path: variable for variable in model.weights})
    folder = tmp_path_factory.mktemp("weights")
    model.save(folder / "ours.keras")
    ours = read_weights(folder / "ours.keras")
    tensors = to_theirs(ours, "fair", Architecture.of(ours))
    state = {f"backbone.{name}": torch.from_numpy(np.array(value)).half() for name, value in tensors.items()}
    content = {"model_state_dict": state, "best_acc": np.float64(83.1), "args": argparse.Namespace(lr=1.0)}
    torch.save(content, folder / "best.pth")
    return folder / "best.pth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve images of two classes for each split."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split in ("train", "test"):
        for i in range(12):
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8) // (1 + i % 2)
            write(folder / split / f"class_{i % 2}" / f"{i}.png", encode(pixels))
    return folder


def test_they_are_evaluated_and_what_is_assumed_is_told(weights, folder):
    lines = Lines()
    results = evaluate.run(weights, f"folder:{folder}", images=SETTINGS, log=lines)
    assert set(results) == {"knn", "linear"}
    assert lines[0] == "images: 32x32, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225), crop 0.875"


def test_features_are_those_of_the_model_and_images_are_found_by_them(weights, folder, tmp_path):
    lines = Lines()
    count = extract.run(weights, tmp_path / "x.npz", f"folder:{folder}", images=SETTINGS, log=lines)
    assert count == 24
    stored = np.load(tmp_path / "x.npz", allow_pickle=False)
    assert stored["features"].shape == (24, 24) and np.isfinite(stored["features"]).all()
    query = str(next((folder / "test" / "class_0").iterdir()))
    search.run(tmp_path / "x.npz", [query], tmp_path / "found.png", k=3, log=lines)
    assert (tmp_path / "found.png").stat().st_size > 0
    assert any("class_0" in line for line in lines)


def test_they_are_exported_with_the_preprocessing_inside(weights, tmp_path):
    request = export.Request("saved_model", preprocessing=export.INSIDE)
    difference = export.run(weights, tmp_path / "model", request, images=SETTINGS, log=Lines())
    assert difference <= export.TOLERANCE and (tmp_path / "model.json").exists()


def test_a_run_is_fine_tuned_from_them(weights, folder, tmp_path):
    data = {"source": f"folder:{folder}", "channels": 3, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    config = tiny_config(model=SIZES, data=data, finetune={"labels": "all", "steps": 1, "batch_size": 4})
    lines = Lines()
    finetune.run(dataclasses.replace(config, pretrained=str(weights)), tmp_path / "run", log=lines)
    assert "the prefix 'backbone.' of the names removed" in lines.text


@pytest.mark.parametrize("command", ["evaluate", "extract"])
def test_they_are_read_once_as_the_configuration_beside_them_says(weights, folder, tmp_path, monkeypatch, command):
    copy = tmp_path / "best.pth"
    shutil.copy(weights, copy)
    config = {"architecture": "convnextv2_own", "model_args": {"output_stride": 8, "norm_eps": 1e-3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    read, models = [], []
    monkeypatch.setattr(factory, "read_checkpoint", lambda *args: read.append(args) or formats.read_checkpoint(*args))
    monkeypatch.setattr(features.PooledFeatures, "__init__", remembering(models, features.PooledFeatures.__init__))
    settings, source = {**SETTINGS, "image_size": 48}, f"folder:{folder}"  # not of the 32 pixels of a published model
    if command == "evaluate":
        evaluate.run(copy, source, images=settings, probes=("knn",), log=Lines())
    else:
        extract.run(copy, tmp_path / "x.npz", source, images=settings, log=Lines())
    assert len(read) == 1
    assert {(model.output_stride, model.epsilon) for model in models} == {(8, 1e-3)}


def remembering(models, initialize):
    def remember(self, encoder, *args):
        models.append(encoder)
        initialize(self, encoder, *args)

    return remember


def test_weights_of_another_size_say_which(weights, folder, tmp_path):
    data = {"source": f"folder:{folder}", "channels": 3, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    config = tiny_config(data=data, finetune={"labels": "all", "steps": 1, "batch_size": 4})
    with pytest.raises(UserError, match=r"The weights are of a model with depths=2,2,4 and dims=8,16,24( and|\.$)"):
        finetune.run(dataclasses.replace(config, pretrained=str(weights)), tmp_path / "run", log=Lines())


def test_what_nothing_tells_is_asked_for(weights, folder):
    with pytest.raises(UserError, match=r"give --image_preset=imagenet\|dinov3\|clip, or --image_size, --mean"):
        evaluate.run(weights, f"folder:{folder}", log=Lines())
    with pytest.raises(UserError, match="--data is missing"):
        evaluate.run(weights, images=SETTINGS, log=Lines())
    grey = ConvNeXtV2((1,), (4,), input_shape=(32, 32, 1), include_top=False)
    grey.save(weights.parent / "grey.keras")
    with pytest.raises(UserError, match="takes images of 1 channels: give --mean and --std"):
        evaluate.run(weights.parent / "grey.keras", "digits", images={"image_size": 32}, log=Lines())
