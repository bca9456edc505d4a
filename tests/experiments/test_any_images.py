"""Runs on images that are not square, of five channels of 16 bits or of floating point with gaps, from end to end."""

import dataclasses
import io
import json

import keras
import numpy as np
import pytest
import tifffile
from PIL import Image

from experiments import evaluate, finetune, pretrain
from experiments.config import DataConfig
from experiments.data.pipeline import evaluation_batches, training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import open_source
from experiments.data.values import Reading
from experiments.errors import UserError
from experiments.inference import export, extract, search
from experiments.inference.feature_files import read_features
from experiments.training.loggers import read_metrics
from experiments.training.statistics import statistics_of, with_statistics
from tests.experiments.images import write
from tests.experiments.tiny import Lines, change, tiny_config

pytestmark = pytest.mark.figures("augmentation")

SIZE, COUNT = (24, 40), 24


def bands(i, dtype="uint16"):
    """`(30, 50, 5)`: a wave whose direction is its class, of other brightness in each channel."""
    rng = np.random.default_rng(i)
    down, right = np.mgrid[:30, :50]
    wave = np.sin((down if i % 2 else right) / 3 + rng.uniform(0, 6))
    pixels = 9000 + 2000 * np.arange(5) + 6000 * wave[..., np.newaxis] + rng.normal(0, 300, (30, 50, 5))
    return pixels.clip(0, 65535).round().astype(dtype)


def folder_of(root, dtype="uint16", change_pixels=lambda pixels: pixels, **options):
    for i in range(COUNT):
        file = io.BytesIO()
        pixels = change_pixels(bands(i, dtype))
        tifffile.imwrite(file, pixels, photometric="minisblack", planarconfig="contig", **options)
        write(root / f"{'ab'[i % 2]}" / f"{i}.tif", file.getvalue())
    return root


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = folder_of(tmp_path_factory.mktemp("bands"))
    data = {"source": f"folder:{root}", "image_size": SIZE, "channels": 5, "mean": "auto", "std": "auto"}
    data |= {"display_bands": (5, 3, 1), "validation_share": 0.25, "test_share": 0.25}
    return tiny_config(
        data=data,
        pretrain={"batch_size": 4, "pictures": 1, "evaluations": 1},
        finetune={"labels": "all", "batch_size": 4, "steps": 4},
    )


@pytest.fixture(scope="module")
def runs(config, tmp_path_factory):
    """`(root, summaries, lines)` of pretraining and fine-tuning."""
    root, lines = tmp_path_factory.mktemp("runs"), Lines()
    first = pretrain.run(config, root / "own", log=lines)
    second = finetune.run(dataclasses.replace(config, pretrained=str(root / "own")), root / "tuned", log=lines)
    return root, (first, second), lines


def recorded(workdir):
    return json.loads((workdir / "config.json").read_text(encoding="utf-8"))["config"]["data"]


def test_mean_and_standard_deviation_are_computed_once_and_kept(config, runs):
    root, _, lines = runs
    split = open_source(config.data).split("train")
    pixels = np.stack([tifffile.imread(path.decode()) for path in split.contents]) / 65535
    data = recorded(root / "own")
    np.testing.assert_allclose(data["mean"], pixels.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(data["std"], pixels.std(axis=(0, 1, 2)), rtol=1e-4)
    assert (recorded(root / "tuned")["mean"], recorded(root / "tuned")["std"]) == (data["mean"], data["std"])
    computed = "mean ± standard deviation of the channels, over 12 training images: "
    assert sum(line.startswith(computed) for line in lines) == 1
    assert f"mean and standard deviation are those of {root / 'own'}" in lines
    again = Lines()
    pretrain.run(config, root / "own", log=again)  # which is complete
    assert again == [f"The run in {root / 'own'} is complete."]
    other = change(config, "data", mean=(0.1,) * 5, std=(1.0,) * 5)
    with pytest.raises(UserError, match="holds a run with a different configuration"):
        pretrain.run(other, root / "own", log=again)


def test_explicit_numbers_win(config):
    split = open_source(config.data).split("train")
    given = change(config, "data", std=(0.5,) * 5)
    found = with_statistics(given, split, "", Lines()).data
    assert found.std == (0.5,) * 5 and found.mean == statistics_of(split, Reading.of(given.data))[0]


def test_values_reach_the_model_unrounded(config):
    data = dataclasses.replace(config.data, mean=(0.0,) * 5, std=(1.0,) * 5, image_size=(30, 50), evaluation_crop=1.0)
    split = open_source(data).split("train")
    (batch,) = evaluation_batches(split, Preprocessing.of(data), split.num_examples).as_numpy_iterator()
    expected = np.stack([tifffile.imread(path.decode()) for path in split.contents]) / 65535
    np.testing.assert_allclose(batch["images"], expected, rtol=2e-6)


def test_all_commands_work_on_them(runs):
    root, (first, second), lines = runs
    assert "as 24x40x5" in lines.text
    assert np.isfinite(first["validation_loss"]) and np.isfinite(second["test_top1"])
    picture = Image.open(next((root / "own" / "reconstructions").iterdir()))
    assert picture.width > picture.height / 2 and (root / "tuned" / "augmentation.png").exists()
    figures = evaluate.run(root / "tuned", probes=("top1", "knn"), log=Lines())
    assert figures["top1"]["model"] == pytest.approx(second["test_top1"])

    features = root / "features.npz"
    assert extract.run(root / "own", features, log=Lines()) == COUNT
    table = read_features(features)
    found = search.run(features, [str(table.names[0])], root / "search.png", k=3, log=Lines())
    assert len(found[0].neighbours) == 3 and (root / "search.png").exists()


@pytest.mark.parametrize("data", ["", "own"])
def test_preprocessing_is_exported_with_the_model(config, runs, data):
    root, _, _ = runs
    wanted = export.Request("onnx", "features", "fixed", "inside", "float32")
    output = root / f"model{data}.onnx"
    source = config.data.source if data else ""
    assert export.run(root / "own", output, wanted, data=source, num_images=3, log=Lines()) < 1e-4
    facts = json.loads((root / f"{output.name}.json").read_text(encoding="utf-8"))
    assert facts["input"]["shape"] == ["batch", 24, 40, 5] and facts["input"]["channels"] == "5 channels"


def gaps(pixels):
    pixels = pixels / np.float32(30000)
    pixels[:15, :25] = np.nan
    return pixels


def test_pixels_without_data_of_floating_point_train_a_model(tmp_path):
    root = folder_of(tmp_path / "images", "float32", gaps)
    data = {"source": f"folder:{root}", "image_size": SIZE, "channels": 5, "mean": "auto", "std": "auto"}
    config = tiny_config(data=data, pretrain={"batch_size": 4, "pictures": 1, "evaluations": 1})
    lines = Lines()
    summary = pretrain.run(config, tmp_path / "run", log=lines)
    assert "the images are floating point: NaN pixels count as missing data" in lines
    assert recorded(tmp_path / "run")["no_data"] == ["nan"] and np.isfinite(summary["validation_loss"])
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert np.isfinite(losses).all() and all(line.get("unreadable", 0) == 0 for line in read_metrics(tmp_path / "run"))
    assert pretrain.run(config, tmp_path / "run", log=Lines()) == summary  # NaN that is found again is no difference


@pytest.mark.parametrize(
    ("written", "no_data", "advice"),
    [("-9999 ", (), "-9999"), ("0", (), "0"), ("-3.4028234663852886e+38", (), "-3.4028234663852886e+38"),
     ("0", (0,), ""), ("nan", (), ""), ("none", (), "")],
)  # fmt: skip
def test_a_value_of_missing_data_that_gdal_wrote_is_told_unless_it_is_set(tmp_path, written, no_data, advice):
    root = folder_of(tmp_path, extratags=[(42113, "s", 0, written, True)])
    numbers = {"mean": (0.4,) * 5, "std": (0.1,) * 5, "no_data": no_data}
    config = tiny_config(data={"source": f"folder:{root}", "image_size": SIZE, "channels": 5, **numbers})
    lines = Lines()
    with_statistics(config, open_source(config.data).split("train"), tmp_path / "run", lines)
    told = "the images declare a value as missing data: to leave such pixels out, start a new run with "
    assert lines == ([f"{told}--config.data.no_data={advice}"] if advice else [])


def test_a_value_range_that_missing_data_spoils_is_told_with_it(tmp_path):
    def with_missing(pixels):
        pixels = pixels / np.float32(70000)
        pixels[:9, :9] = -9999
        return pixels

    root = folder_of(tmp_path / "images", "float32", with_missing, extratags=[(42113, "s", 0, "-9999", True)])
    data = {"source": f"folder:{root}", "image_size": SIZE, "channels": 5, "mean": (0.4,) * 5, "std": (0.1,) * 5}
    split, lines = open_source(DataConfig(**data)).split("train"), Lines()
    hint = r"its values range from -9999 to .* It declares -9999 as missing data: set data.no_data=-9999\.$"
    with pytest.raises(UserError, match=hint):
        with_statistics(tiny_config(data=data), split, tmp_path / "run", lines)
    with_statistics(tiny_config(data={**data, "no_data": (-9999,)}), split, tmp_path / "run", lines)
    assert lines == []


def test_batches_say_where_there_is_data(tmp_path):
    root = folder_of(tmp_path / "images", "float32", gaps)
    data = DataConfig(
        source=f"folder:{root}", image_size=(30, 50), channels=5, mean=(0.4,) * 5, std=(0.1,) * 5, no_data=("nan",),
        evaluation_crop=1.0, validation_share=0.0, test_share=0.0,
    )  # fmt: skip
    split, preprocessing = open_source(data).split("train"), Preprocessing.of(data)
    (batch,) = evaluation_batches(split, preprocessing, COUNT, num_patches=15).as_numpy_iterator()
    expected = np.stack([tifffile.imread(path.decode()) for path in split.contents])
    np.testing.assert_array_equal(batch["valid"], np.isfinite(expected))
    assert not batch["images"][batch["valid"] == 0].any()
    known = np.isfinite(expected)
    np.testing.assert_allclose(batch["images"][known], (expected[known] - 0.4) / 0.1, atol=1e-4)
    (batch,) = training_batches(split, preprocessing, 8, 0, num_patches=15).take(1).as_numpy_iterator()
    assert set(np.unique(batch["valid"])) == {0.0, 1.0} and np.isfinite(batch["images"]).all()
    assert "valid" not in next(iter(evaluation_batches(split, preprocessing, COUNT)))


@pytest.mark.parametrize(
    ("change_pixels", "options", "message"),
    [
        (
            lambda pixels: pixels,
            {},
            r"values range from .* to .*, but floating point should be in \[0, 1\]: set",
        ),
        (lambda pixels: pixels[..., :4], {"value_range": (0.0, 30000.0)}, "none of its 24 image files can be read"),
    ],
)
def test_what_does_not_fit_the_configuration_is_told_in_one_line(tmp_path, change_pixels, options, message):
    root = folder_of(tmp_path / "images", "float32", change_pixels)
    data = {"source": f"folder:{root}", "image_size": SIZE, "channels": 5, "mean": "auto", "std": "auto", **options}
    with pytest.raises(UserError, match=message):
        pretrain.run(tiny_config(data=data, pretrain={"batch_size": 4}), tmp_path / "run", log=Lines())


def test_the_saved_model_takes_the_channels(runs):
    root, _, _ = runs
    assert keras.saving.load_model(root / "own" / "encoder.keras").image_shape == (24, 40, 5)
