"""The pieces of the benchmark of the input pipeline: files, Pillow's side, figures."""

import random

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from experiments.benchmarks import input as pipeline
from experiments.benchmarks import pillow
from experiments.benchmarks.input import STAGES, InputSettings
from experiments.benchmarks.photographs import write_photographs
from experiments.benchmarks.pillow import PILLOW, crop_and_resize, draw_window, load_with_pillow
from experiments.data.augmentation import views
from experiments.data.decoding import decode_and_crop
from experiments.data.values import Reading
from experiments.errors import UserError

WINDOWS = [(0, 0, 500, 375), (37, 21, 201, 260), (133, 5, 360, 300)]  # left, top, width, height


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"), 4, seed=0)


def test_files_are_as_large_as_those_of_imagenet(paths):
    for path in paths:
        assert 108_000 <= path.stat().st_size <= 112_000
        with Image.open(path) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (500, 375), "RGB")
    assert len({path.read_bytes() for path in paths}) == 4


def test_files_follow_from_the_seed(paths, tmp_path):
    (again,) = write_photographs(tmp_path, 1, seed=0)
    assert again.read_bytes() == paths[0].read_bytes()
    (other,) = write_photographs(tmp_path, 1, seed=1)
    assert other.read_bytes() != paths[0].read_bytes()


@pytest.mark.parametrize("window", WINDOWS)
def test_pillow_and_the_pipeline_make_the_same_of_a_window(paths, window):
    left, top, width, height = window
    content = tf.constant(paths[1].read_bytes())
    cut = decode_and_crop(content, lambda _: tf.constant((top, left, height, width)), Reading())
    pixels = views.resize(cut, (224, 224)).numpy()
    whole = Image.fromarray(decode_and_crop(content, views.whole_window, Reading()).numpy().astype(np.uint8))
    difference = np.abs(pixels - np.asarray(crop_and_resize(whole, window, (224, 224))))
    assert (
        difference.mean() < 0.4 and np.quantile(difference, 0.999) < 4
    )  # Pillow rounds twice; colours at the border of a window
    with Image.open(paths[1]) as file:
        image = file.convert("RGB")
    difference = np.abs(pixels - np.asarray(crop_and_resize(image, window, (224, 224))))
    assert difference.mean() < 2.0  # TensorFlow decodes with a faster, rougher transform


def test_windows_of_the_reference_have_the_areas_and_aspects_of_pretraining():
    generator = random.Random(0)
    windows = np.array([draw_window(500, 375, generator) for _ in range(2000)])
    left, top, width, height = windows.T
    assert (left >= 0).all() and (top >= 0).all()
    assert (left + width <= 500).all() and (top + height <= 375).all()
    area, aspect = width * height / (500 * 375), width / height
    assert 0.19 < area.min() < 0.22 and area.max() > 0.9
    assert aspect.min() > 0.74 and aspect.max() < 1.35
    assert 0.48 < area.mean() < 0.52


def test_the_reference_flips_and_normalizes(paths):
    mean, std = np.float32((0.4, 0.5, 0.6)), np.float32((0.2, 0.25, 0.3))
    plain = load_with_pillow(paths[0], (160, 160), None, random.Random(3))
    normalized = load_with_pillow(paths[0], (160, 160), (mean, std), random.Random(3))
    assert plain.dtype == "uint8" and normalized.dtype == "float32"
    np.testing.assert_allclose(normalized, (plain / 255.0 - mean) / std, atol=1e-5)
    with Image.open(paths[0]) as file:
        image, straight = file.convert("RGB"), 0
    for seed in range(20):
        window = draw_window(500, 375, random.Random(seed))
        expected = np.asarray(crop_and_resize(image, window, (160, 160)))
        actual = load_with_pillow(paths[0], (160, 160), None, random.Random(seed))
        unflipped = np.array_equal(actual, expected)
        assert unflipped or np.array_equal(actual, expected[:, ::-1])
        straight += unflipped
    assert 4 <= straight <= 16


def test_figures_follow_from_the_turns():
    settings = InputSettings(batch_size=4, files=4, steps=5, rounds=3)
    seconds = {"pillow": [4.0, 2.0, 8.0], "pillow_normalize": [5.0, 4.0, 10.0], "pretraining": [2.0, 2.0, 2.5]}
    turns = {
        name: [{"seconds": value, "core_seconds": value / 2, "others_cores": 0.1} for value in own]
        for name, own in seconds.items()
    }
    table = pipeline.measured(settings, turns, cores=2)
    figures = table["candidates"]["pretraining"]
    assert table["cores"] == 2
    assert figures["images_per_second"]["rounds"] == [10.0, 10.0, 8.0]  # 20 images a turn
    assert figures["images_per_second_per_core"]["median"] == 5.0
    # Within rounds: 2, 1 and 3.2 times as fast.
    ratio = figures["times_as_fast"]["pillow"]
    assert (ratio["smallest"], ratio["median"], ratio["largest"]) == (1.0, 2.0, 3.2)
    assert figures["times_as_fast"]["pillow_normalize"]["median"] == 2.5
    line = pipeline.report_lines(table)[3].split()
    assert line[:6] == ["pretraining", "10.0", "(8.0", "-", "10.0)", "5.0"]
    assert line[6] == "50.000"  # a second of work for 20 images
    assert line[7:] == ["2.00", "(1.00", "-", "3.20)", "2.50", "(2.00", "-", "4.00)"]
    assert any("other processes: 0.10 cores" in line for line in pipeline.report_lines(table))


def test_pillow_decodes_large_files_smaller(paths, monkeypatch):
    ratios, draft = [], JpegImageFile.draft

    def counted(file, mode, size):
        ratios.append(file.width // size[0])
        return draft(file, mode, size)

    monkeypatch.setattr(JpegImageFile, "draft", counted)
    monkeypatch.setattr(pillow, "draw_window", lambda width, height, generator: (16, 8, 480, 320))
    small, large = (load_with_pillow(paths[0], size, None, random.Random(3)) for size in [(40, 60), (200, 300)])
    assert ratios == [4]
    with Image.open(paths[0]) as file:
        whole = file.convert("RGB")
    for image in (small, large):
        expected = np.asarray(crop_and_resize(whole, (16, 8, 480, 320), image.shape[:2])).astype(int)
        difference = min(np.abs(image - expected).mean(), np.abs(image - expected[:, ::-1]).mean())
        assert difference < 2


def test_the_images_of_a_source_are_measured(paths):
    settings = InputSettings(stages=("pretraining",), source=f"folder:{paths[0].parent}", image_size=32, batch_size=4)
    (batch,) = pipeline.TensorFlowPipelines(settings, []).batches("pretraining").take(1).as_numpy_iterator()
    assert batch["images"].shape == (4, 32, 32, 3) and (batch["weights"] == 1.0).all()
    assert pipeline.images_of_folder(paths[0].parent) == paths


@pytest.mark.parametrize("name", STAGES)
def test_each_stage_is_the_pipelines_own(paths, name):
    settings = InputSettings(image_size=32, batch_size=4, files=4)
    pipelines = pipeline.TensorFlowPipelines(settings, [str(path) for path in paths])
    (batch,) = pipelines.batches(name).take(1).as_numpy_iterator()
    images = batch["images"]
    assert images.shape == (4, 32, 32, 3) and (batch["weights"] == 1.0).all()
    assert images.min() < 0.0  # they are normalized
    assert ("targets" in batch) == (name in ("mixing", "finetuning"))
    assert ("noise" in batch) == (name in ("normalize", "pretraining", "pretraining_stream"))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"files": 8, "batch_size": 16}, "files=8 do not fill a batch of batch_size=16"),
        ({"stages": ("evaluation", "sleep")}, "stages='sleep' is not one of normalize, pretraining, "),
        ({"rounds": 0}, "rounds must be at least 1, got 0."),
        ({"source": "shards:x", "stages": ("evaluation",)}, "pillow_folder is empty: Pillow cannot read shards:x."),
        ({"source": "folder:x"}, "The stage pretraining_stream needs generated files."),
    ],
)
def test_a_wrong_setting_is_named(values, says):
    with pytest.raises(UserError) as error:
        InputSettings(**values)
    assert says in str(error.value)


def test_candidates_have_names_of_their_own():
    assert not set(STAGES) & set(PILLOW)
