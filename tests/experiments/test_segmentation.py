"""A segmentation run from its folder to its figures, on two devices."""

import csv
import dataclasses
import io
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, finetune
from experiments.data.segmentation_masks import ClassTable, read_numbers
from experiments.errors import UserError
from experiments.evaluation.mask_colors import overlaid
from experiments.evaluation.segmentation import pixel_classes
from experiments.inference import predict
from experiments.report.page import render
from experiments.report.reader import read_runs
from experiments.training.loggers import read_metrics
from tests.experiments.images import broken_inside, encode, write
from tests.experiments.scenes import NAMES, scene, write_scenes
from tests.experiments.tiny import TWO_STAGES, Lines, change, tiny_config

MEAN, STD = (0.4, 0.4, 0.4), (0.25, 0.25, 0.25)
FILES = {"": "segmenter.keras", "_ema": "segmenter_ema.keras", "best": "segmenter_best.keras"}


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """Scenes, in windows of 32x32 pixels; evaluation sees them in parts of 32x32 too."""
    root = write_scenes(tmp_path_factory.mktemp("scenes"), train=12)
    training = {
        **{"task": "segmentation", "labels": "all", "steps": 50, "batch_size": 4, "evaluations": 2},
        **{"base_learning_rate": 1.0, "ema_decay": 0.8, "layer_decay": 0.9, "class_weights": "balanced"},
    }
    data = {"source": f"folder:{root}", "channels": 3, "mean": MEAN, "std": STD, "ignore_label": (250,), "flip": True}
    config = tiny_config(finetune=training, data=data, model={**TWO_STAGES, "dims": (8, 8)}, logical_cpus=2, seed=1)
    segmentation = {
        "decoder": "fpn",
        "decoder_dim": 8,
        "dice_weight": 0.5,
        "pictures": 1,
        "window": 32,
        "dropout_rate": 0.0,
    }
    return change(config, "segmentation", **segmentation)


@pytest.fixture(scope="session")
def run(config, tmp_path_factory):
    """`(workdir, summary, lines)` of a finished run."""
    workdir, lines = tmp_path_factory.mktemp("runs") / "segmented", Lines()
    return workdir, finetune.run(config, workdir, log=lines), lines


def windows_of(image):
    """The parts of a 40x48 image that windows of 32x32 with an overlap of a quarter see, and which pixels count."""
    for top, rows in ((0, slice(0, 20)), (8, slice(20, 40))):
        for left, columns in ((0, slice(0, 24)), (16, slice(24, 48))):
            yield image[top : top + 32, left : left + 32], top, left, rows, columns


def ious_by_hand(config, model, split):
    """IoU of each class, pixel by pixel from the files."""
    root = config.data.source.removeprefix("folder:")
    both, union = np.zeros(3), np.zeros(3)
    for i in range(4):
        image, mask = (Image.open(f"{root}/{kind}/{split}/{i}.png") for kind in ("images", "masks"))
        pixels = (np.asarray(image) / 255.0 - np.array(MEAN)) / np.array(STD)
        found = np.zeros((40, 48), int)
        for window, top, left, rows, columns in windows_of(pixels.astype("float32")):
            classes = np.asarray(model(window[np.newaxis]))[0].argmax(axis=-1)
            below, right = (slice(part.start - at, part.stop - at) for part, at in ((rows, top), (columns, left)))
            found[rows, columns] = classes[below, right]
        truth = np.asarray(mask).astype(int)
        for c in range(3):
            both[c] += np.sum((truth == c) & (found == c))
            union[c] += np.sum(((truth == c) | (found == c)) & (truth != 250))
    return 100 * both / union


def test_it_learns_and_the_summary_has_the_figures_of_every_model(config, run):
    workdir, summary, lines = run
    assert "  devices       2 x CPU, mirrored, float32" in lines
    assert summary["classes"] == list(NAMES) and summary["class_numbers"] == [0, 1, 2]
    assert (workdir / "classes.txt").read_text() == "0 ground\n1 square\n2 disc\n"
    for kind, file in FILES.items():
        model = keras.saving.load_model(workdir / file)
        for split, folder in (("validation", "val"), ("test", "test")):
            prefix, suffix = ("best_", "") if kind == "best" else ("", kind)
            ious = ious_by_hand(config, model, folder)
            assert summary[f"{prefix}{split}_mean_iou{suffix}"] == pytest.approx(ious.mean())
            if (kind, split) == ("", "test"):
                with open(workdir / "report_test.csv", encoding="utf-8") as csv_file:
                    rows = list(csv.DictReader(csv_file))
                assert [float(row["iou"]) for row in rows] == pytest.approx(ious.tolist(), rel=1e-5)
    assert summary["best_test_mean_iou"] > 60  # of a model that says ground everywhere it is below 30
    assert json.loads((workdir / "best.json").read_text())["validation_mean_iou"] == summary["best_validation_mean_iou"]


def test_pictures_and_the_confusions_are_drawn(run):
    workdir, *_ = run
    for name in ("confusion_test.png", "segmentations/step_00000050.png"):
        assert np.asarray(Image.open(workdir / name).convert("L")).std() > 10
    assert {"validation_mean_iou", "validation_pixel_accuracy"} <= set().union(*read_metrics(workdir))


def test_a_run_starts_from_a_pretrained_encoder(config, run, tmp_path):
    """From the encoder of the other run, which at a rate of almost zero stays where it is; the decoder is new."""
    values = {"steps": 1, "base_learning_rate": 1e-9, "evaluations": 0, "ema_decay": 0.0}
    lines = Lines()
    changed = {"decoder": "upernet", "auxiliary_weight": 0.0, "pictures": 0}
    config = change(change(config, "finetune", **values), "segmentation", **changed)
    finetune.run(dataclasses.replace(config, pretrained=str(run[0]), logical_cpus=0), tmp_path, log=lines)
    one, other = (keras.saving.load_model(folder / "segmenter.keras") for folder in (run[0], tmp_path))
    for before, after in zip(one.backbone.weights, other.backbone.weights, strict=True):
        np.testing.assert_allclose(before, after, atol=1e-6)


@pytest.mark.parametrize(("field", "value"), [("mixup_alpha", 0.2), ("multi_label", True), ("label_smoothing", 0.1)])
def test_fields_of_classification_are_refused(config, field, value):
    with pytest.raises(UserError, match=f"finetune.{field} is for finetune.task=classification: leave it out"):
        change(config, "finetune", **{field: value})


def test_evaluation_gives_the_figures_of_the_summary(run, config, tmp_path):
    workdir, summary, _ = run
    names = ("mean_iou", "pixel_accuracy")
    found = evaluate.run(workdir, log=Lines())
    assert found == {name: {"model": pytest.approx(summary[f"test_{name}"])} for name in names}
    best, data = workdir / "segmenter_best.keras", config.data.source
    found = evaluate.run(best, data=data, split="validation", probes=("mean_iou",), log=Lines())
    assert found == {"mean_iou": {"model": pytest.approx(summary["best_validation_mean_iou"])}}
    root = pathlib.Path(config.data.source.partition(":")[2])
    for kind in ("images", "masks"):
        shutil.copytree(root / kind / "test", tmp_path / kind / "test")
    assert evaluate.run(workdir, data=f"folder:{tmp_path}", log=Lines()) == evaluate.run(workdir, log=Lines())
    with pytest.raises(UserError, match="has no knn; it has mean_iou and pixel_accuracy"):
        evaluate.run(workdir, probes=("knn",), log=Lines())


def test_evaluation_refuses_a_folder_that_names_other_classes(run, config, tmp_path):
    root = write_scenes(tmp_path / "scenes", train=2)
    lines = (run[0] / "classes.txt").read_text(encoding="utf-8").splitlines()
    (root / "classes.txt").write_text("\n".join(reversed(lines)), encoding="utf-8")
    evaluate.run(run[0], data=f"folder:{root}", log=Lines())  # in another order, the same classes
    numbers, names = zip(*(line.split(" ", 1) for line in lines))
    swapped = (f"{number} {name}" for number, name in zip(numbers, reversed(names)))
    (root / "classes.txt").write_text("\n".join(swapped), encoding="utf-8")
    with pytest.raises(UserError, match="was fine-tuned on other classes than those of .*classes.txt, or on other"):
        evaluate.run(run[0], data=f"folder:{root}", log=Lines())


@pytest.fixture(scope="module")
def unfinished(config, tmp_path_factory):
    """`(root, config, workdir, summary, lines)` of a run of a step whose last one is to be done again.

    A validation image and two test images show their damage when they are decoded.
    """
    root = write_scenes(tmp_path_factory.mktemp("scenes"), train=4)
    for name in ("val/1", "test/0", "test/3"):
        write(root / f"images/{name}.png", broken_inside(np.asarray(Image.open(root / f"images/{name}.png"))))
    workdir, lines = tmp_path_factory.mktemp("runs") / "damaged", Lines()
    config = change(
        change(config, "finetune", steps=1, evaluations=1, class_weights="none"), "data", source=f"folder:{root}"
    )
    config = change(config, "segmentation", pictures=0)
    summary = finetune.run(config, workdir, log=lines)
    (workdir / "summary.json").unlink()
    return root, config, workdir, summary, lines


def test_images_that_cannot_be_read_are_counted_in_the_summary(unfinished):
    _, _, workdir, summary, lines = unfinished
    assert "test: 2 of 4 images or their masks cannot be read, and are left out" in lines
    assert {name: value for name, value in summary.items() if "unreadable" in name} == {
        "validation_unreadable": 1,
        "validation_unreadable_ema": 1,
        "test_unreadable": 2,
        "test_unreadable_ema": 2,
        "best_test_unreadable": 2,
    }
    assert [line["validation_unreadable"] for line in read_metrics(workdir) if "validation_mean_iou" in line] == [1]


def test_images_that_cannot_be_read_are_told_in_evaluation(run, unfinished):
    lines = Lines()
    evaluate.run(run[0], data=f"folder:{unfinished[0]}", log=lines)
    assert lines[-1] == "test: 2 of 4 images or their masks cannot be read, and are left out"
    lines = Lines()
    evaluate.run(run[0], log=lines)
    assert len(lines) == 1


def test_a_run_whose_classes_changed_is_not_resumed(unfinished):
    root, config, workdir, _, _ = unfinished
    names = root / "classes.txt"
    before = names.read_text(encoding="utf-8")
    for after, changed in (
        (before.replace("disc", "ball"), "'2 ball' instead of '2 disc'"),
        ("1 square\n0 ground\n2 disc\n", "'1 square' instead of '0 ground'"),
        (before + "3 sky\n", "'3 sky' instead of 'no class'"),
        (None, "'0 0' instead of '0 ground'"),
    ):
        names.write_text(after, encoding="utf-8") if after else names.unlink()
        with pytest.raises(UserError) as error:
            finetune.run(config, workdir, log=Lines())
        where = f"{workdir / 'classes.txt'} has the classes that this run learns, but folder:{root} now has others"
        assert str(error.value) == f"{where} ({changed}): restore them, or use another --workdir."
        assert (workdir / "classes.txt").read_text(encoding="utf-8") == before
    names.write_text(before.replace("0 ", "0: "), encoding="utf-8")  # the same
    assert finetune.run(config, workdir, log=Lines())["steps"] == 1


def test_evaluation_refuses_the_folder_of_the_run_once_it_names_other_classes(unfinished):
    root, _, workdir, _, _ = unfinished
    before = (root / "classes.txt").read_text(encoding="utf-8")
    (root / "classes.txt").write_text(before.replace("disc", "ball"), encoding="utf-8")
    with pytest.raises(UserError, match=f"was fine-tuned on other classes than those of {root}/classes.txt"):
        evaluate.run(workdir, log=Lines())
    (root / "classes.txt").write_text(before, encoding="utf-8")


def test_images_of_other_channels_are_told_in_one_line(run, tmp_path):
    write(tmp_path / "images/a.npy", encode_npy(np.zeros((8, 8, 5), np.uint8)))
    with pytest.raises(UserError, match=r"such as a.npy: it has 5 channels, and the model takes 3"):
        predict.run(run[0], str(tmp_path / "images"), str(tmp_path / "out"), log=Lines())


def encode_npy(pixels):
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def test_evaluation_takes_as_many_images_at_a_time_as_it_is_told(run, config, monkeypatch):
    most = []

    def spy(model, config, *arguments):
        most.append(config.evaluation_batch())
        return pixel_classes(model, config, *arguments)

    monkeypatch.setattr("experiments.evaluation.segmentation.pixel_classes", spy)
    for batch_size in (3, 0):
        evaluate.run(run[0], batch_size=batch_size, log=Lines())
    assert most == [3, config.evaluation_batch()]


@pytest.mark.parametrize("what", [{"labels_file": "labels.csv"}, {"images": {"image_size": 32}}])
def test_evaluation_refuses_what_a_segmentation_model_has_no_use_for(tmp_path, what):
    write(tmp_path / "segmenter.keras", b"")
    with pytest.raises(UserError, match="segmenter.keras is a segmentation model, .*: leave out --"):
        evaluate.run(tmp_path, **what, log=Lines())


def test_predictions_are_written_as_masks_and_overlays(run, config, tmp_path):
    workdir, _, _ = run
    folder = tmp_path / "images"
    for i in range(2):
        write(folder / f"sub/{i}.jpg", encode(scene(90 + i)[0], "jpeg"))
    write(folder / "0.png", encode(scene(90, size=(10, 75))[0]))
    write(folder / "0.bmp", encode(scene(91)[0], "bmp"))
    write(folder / "cut.png", broken_inside(scene(92)[0]))
    lines = Lines()
    assert predict.run(workdir, str(folder), str(tmp_path / "out"), log=lines) == 4
    assert lines[-1] == "skipped 1 files: cut.png: it cannot be decoded"
    names = {"sub/0", "sub/1", "0.png", "0.bmp"}
    for kind, suffix in (("masks", ".png"), ("overlays", ".jpg")):
        found = {str(path.relative_to(tmp_path / "out" / kind)) for path in (tmp_path / "out" / kind).rglob("*.*")}
        assert found == {name + suffix for name in names}
    path = tmp_path / "out/masks/0.bmp.png"
    mask = Image.open(path)
    assert mask.mode == "P"
    np.testing.assert_array_equal(read_numbers(path.read_bytes()), np.asarray(mask))
    pixels = (scene(91)[0] / 255.0 - np.array(MEAN)) / np.array(STD)
    model = keras.saving.load_model(workdir / "segmenter.keras")
    for window, top, left, rows, columns in windows_of(pixels.astype("float32")):
        classes = np.asarray(model(window[np.newaxis]))[0].argmax(axis=-1)
        below, right = (slice(part.start - at, part.stop - at) for part, at in ((rows, top), (columns, left)))
        np.testing.assert_array_equal(np.asarray(mask)[rows, columns], classes[below, right])
    overlay = (tmp_path / "out/overlays/0.bmp.jpg").read_bytes()
    assert overlay == encode(overlaid(scene(91)[0], np.asarray(mask)), "jpeg", quality=90)
    assert (tmp_path / "out/classes.txt").read_text() == (workdir / "classes.txt").read_text()
    with pytest.raises(UserError, match="has no model of a segmentation run"):
        predict.run(folder, str(folder), str(tmp_path / "other"), log=Lines())


def test_the_page_shows_the_run(run):
    workdir, summary, _ = run
    (found,) = read_runs([workdir])
    assert found.problems == []
    page = render([found], "scenes")
    for text in (f"{summary['test_mean_iou']:.2f}", "IoU of each class on the test images", "Masks over time", "disc"):
        assert text in page
    assert "1 segmentation model" in page and "Augmentation" not in page


def test_numbers_of_masks_are_those_of_the_training_masks():
    mask = np.array([[0, 1], [2, 1]])
    for numbers, mode in (((3, 255, 9), "P"), ((3, 700, 9), "I;16")):
        picture = predict.mask_picture(mask, ClassTable(tuple("abc"), numbers))
        assert picture.mode == mode
        np.testing.assert_array_equal(np.asarray(picture), np.array(numbers)[mask])


def test_every_image_has_a_mask_of_its_own_name():
    files = ["x.jpg", "x.png", "x.jpg.jpg", "y.png", "sub/y.png"]
    names = predict._names(files)
    assert names[3:] == ["y", "sub/y"] and len({*names}) == len(files)
