"""Folders of images with masks, as people have them: complete, with gaps, and damaged."""

import os
import pathlib
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from experiments.config import DataConfig
from experiments.data.segmentation_pipeline import pixel_counts
from experiments.data.sources import open_source
from experiments.errors import UserError
from tests.experiments.images import broken_inside, encode, gradient, write
from tests.experiments.scenes import NAMES, scene, write_scenes


def open_folder(root, masks=True, **changes):
    return open_source(DataConfig(source=f"folder:{root}", **{"ignore_label": (250,), **changes}), masks)


def mask_names(source, split):
    """The images of a split with their masks, as paths below `images` and `masks`."""
    part = source.split(split)
    paths = zip(part.contents, source.masks.paths[part.labels])
    return [tuple(pathlib.Path(path.decode()).name for path in pair) for pair in paths]


def test_splits_and_classes_of_a_folder(tmp_path):
    write_scenes(tmp_path, 3, 2, 1)
    source = open_folder(tmp_path)
    assert {name: source.split(name).num_examples for name in source.splits} == {"train": 3, "validation": 2, "test": 1}
    assert source.class_names == NAMES and source.masks.table.numbers == (0, 1, 2) and not source.skipped
    assert mask_names(source, "train") == [(f"{i}.png", f"{i}.png") for i in range(3)]
    assert "6 images with masks, 3 classes: ground, square, disc" in source.notes


def test_without_splits_parts_are_held_out_and_without_names_numbers_are_classes(tmp_path):
    for i in range(20):
        image, mask = scene(i)
        folder = f"site_{i % 2}"
        write(tmp_path / f"images/{folder}/{i}.jpg", encode(image, "jpeg"))
        write(tmp_path / f"masks/{folder}/{i}.TIF", encode(mask, "tiff"))
    source = open_folder(tmp_path, ignore_label=())
    counts = {name: source.split(name).num_examples for name in source.splits}
    assert counts == {"train": 16, "validation": 2, "test": 2}
    assert source.class_names == ("0", "1", "2", "250")
    assert all(image.removesuffix(".jpg") == mask.removesuffix(".TIF") for image, mask in mask_names(source, "train"))


def test_pretraining_sees_the_images_alone(tmp_path):
    write_scenes(tmp_path, 3, 2, 1)
    source = open_folder(tmp_path, masks=False)
    assert source.num_classes == 0 and source.split("train").num_examples == 3
    assert "the masks beside them are not read" in source.notes
    assert all(b"/images/" in path for path in source.split("train").contents)


def test_pretraining_holds_out_the_images_that_fine_tuning_does(tmp_path):
    for i in range(30):
        image, mask = scene(i)
        write(tmp_path / f"images/{i:02}.png", encode(image))
        if i % 7:  # the others have no mask
            write(tmp_path / f"masks/{i:02}.png", encode(mask))
    pairs, alone = open_folder(tmp_path), open_folder(tmp_path, masks=False)

    def files(source, split):
        return {pathlib.Path(path.decode()).name for path in source.split(split).contents}

    with_mask = {f"{i:02}.png" for i in range(30) if i % 7}
    for split in ("train", "validation", "test"):
        assert files(pairs, split) == files(alone, split) & with_mask
    assert len(files(alone, "train")) == 24 and not files(alone, "train") & files(pairs, "test")


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_masks_of_one_bit_have_the_classes_0_and_1(tmp_path, kind):
    for i in range(3):
        _, mask = scene(i)
        write(tmp_path / f"images/{i}.png", encode(scene(i)[0]))
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask == 1).save(tmp_path / f"masks/{i}.{kind}")
    source = open_folder(tmp_path)
    assert source.class_names == ("0", "1") and source.masks.table.numbers == (0, 1)
    pixels = np.concatenate([scene(i)[1].ravel() == 1 for i in range(3)])
    assert pixel_counts(source.split("train"), source.masks).tolist() == [np.sum(~pixels), np.sum(pixels)]


def test_names_match_however_accents_are_written(tmp_path):
    image, mask = scene(0)
    for i in range(4):
        write(tmp_path / f"images/{i} caf\u00e9.png", encode(image))
        write(tmp_path / f"masks/{i} cafe\u0301.png", encode(mask))
    assert not open_folder(tmp_path).skipped


def test_a_split_without_images_is_not_one_whose_pixels_are_ignored(tmp_path):
    for i in range(3):
        image, mask = scene(i)
        write(tmp_path / f"images/{i}.png", encode(image))
        write(tmp_path / f"masks/{i}.png", encode(mask))
    notes = open_folder(tmp_path).notes
    assert any("no validation images" in note for note in notes)
    assert not any("all are ignored" in note for note in notes)


TURNED = {0x112: 6}  # EXIF's orientation: to be turned by a quarter


def test_images_whose_masks_cannot_be_used_are_skipped_and_named(tmp_path):
    write_scenes(tmp_path, 9, 1, 1)
    masks = tmp_path / "masks/train"
    (masks / "0.png").unlink()
    write(masks / "1.png", encode(np.zeros((40, 47), np.uint8)))
    write(masks / "2.png", (masks / "2.png").read_bytes()[:60])
    write(masks / "3.png", b"")
    write(masks / "4.png", broken_inside(np.zeros((40, 48), np.uint8)))
    write(masks / "5.png", encode(gradient(40, 48)))
    (masks / "6.png").unlink()
    write(masks / "6.jpg", encode(scene(6)[1], "jpeg"))
    exif = Image.Exif()
    exif.update(TURNED)
    write(tmp_path / "images/train/7.jpg", encode(scene(7)[0], "jpeg", exif=exif))  # upright it is 48 x 40
    (tmp_path / "images/train/7.png").unlink()
    (masks / "deeper").symlink_to("deeper")
    (masks / "8.png").unlink()
    os.mkfifo(masks / "8.png")
    write(tmp_path / "images/train/9.png", encode(scene(9)[0]))
    write(masks / "9.png", encode(scene(9)[1]))
    source = open_folder(tmp_path)
    assert mask_names(source, "train") == [("9.png", "9.png")]
    reasons = dict(source.skipped)
    assert reasons["train/0.png"] == "it has no mask"
    assert reasons["train/6.png"] == "its mask train/6.jpg: masks must be PNG or TIFF (JPEG changes values)"
    assert reasons["train/1.png"] == "it and its mask train/1.png have different sizes, 40x48 and 40x47"
    assert reasons["train/7.jpg"] == "it and its mask train/7.png have different sizes, 48x40 and 40x48"
    assert (
        reasons["train/2.png"] == reasons["train/4.png"].replace("4.png", "2.png") == "its mask train/2.png is damaged"
    )
    assert reasons["train/3.png"] == "its mask train/3.png: the file is empty"
    assert reasons["train/5.png"].startswith("its mask train/5.png: it has colours")
    assert reasons["masks/train/deeper"] == "a folder or link that cannot be opened"
    assert reasons["train/8.png"] == "its mask train/8.png is not a file"
    assert "skipped 10 files: 1 x it has no mask" in "\n".join(source.notes)


def test_a_number_that_is_no_class_ends_the_start_with_the_file(tmp_path):
    write_scenes(tmp_path, 3, 1, 1)
    image, mask = scene(1)
    mask[5, 5] = 3
    write(tmp_path / "masks/train/1.png", encode(mask))
    with pytest.raises(UserError, match=r"masks/train/1.png has the number 3, which is not a class: .*ignore_label=3"):
        open_folder(tmp_path)
    assert open_folder(tmp_path, ignore_label=(3, 250)).class_names == NAMES
    names = write(tmp_path / "names.txt", b"a\nb\nc\nd\n")
    assert open_folder(tmp_path, class_names=str(names)).class_names == tuple("abcd")


@pytest.mark.parametrize("number", [70000, -5])
@pytest.mark.parametrize("named", [True, False])
def test_a_number_that_no_class_can_have_ends_the_start_with_the_file(tmp_path, number, named):
    write_scenes(tmp_path, 3, 1, 1)
    mask = scene(1)[1].astype(np.int32)
    mask[5, 5] = number
    (tmp_path / "masks/train/1.png").unlink()
    tifffile.imwrite(tmp_path / "masks/train/1.tif", mask)
    if not named:
        (tmp_path / "classes.txt").unlink()
    with pytest.raises(UserError, match=rf"masks/train/1.tif has the number {number}: save it with numbers from 0 to "):
        open_folder(tmp_path)


@pytest.mark.parametrize("number", [65536, -1])
def test_a_number_that_no_class_can_have_is_not_ignored_either(number):
    with pytest.raises(UserError, match=r"data.ignore_label=.*: mask values must be from 0 to 65535"):
        DataConfig(ignore_label=(11, number))
    assert DataConfig(ignore_label=(0, 65535)).ignore_label == (0, 65535)


def test_masks_without_an_image_are_counted(tmp_path):
    write_scenes(tmp_path, 4, 1, 1)
    (tmp_path / "images/train/0.png").unlink()
    write(tmp_path / "images/train/1.png", b"")  # unreadable, so its mask has an image
    for name in ("masks/other/0.png", "masks/train/0.txt", "masks/train/2.jpg"):  # the last two are not masks
        write(tmp_path / name, b"")
    assert "left out: 2 masks without an image" in open_folder(tmp_path).notes


def test_splits_whose_masks_lack_classes_are_told(tmp_path):
    write_scenes(tmp_path, 2, 1, 1)

    def fill(split, numbers):
        for path in (tmp_path / "masks" / split).iterdir():
            write(path, encode(numbers[scene(0)[1] % 250]))

    fill("train", np.array([0, 1, 250], np.uint8))
    fill("test", np.full(3, 250, np.uint8))
    notes = open_folder(tmp_path).notes
    assert {"1 classes have no pixels to train on: disc", "no pixel of the test masks counts: all are ignored"} <= {
        *notes
    }
    fill("train", np.full(3, 250, np.uint8))
    with pytest.raises(UserError, match=r"data.ignore_label=\(250,\) leaves no pixel to train on"):
        open_folder(tmp_path)


def replaced(name):
    """A function that puts a folder in the place of a file."""
    return lambda root: [(root / name).unlink(), (root / name).mkdir()]


def dangling(name):
    """A function that puts a link that leads nowhere in the place of a file."""
    return lambda root: [(root / name).unlink(), (root / name).symlink_to("nowhere")]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "masks").rename(root / "labels"), "has no folders images and masks"),
        (lambda root: [path.unlink() for path in (root / "masks").rglob("*.png")], "none of 5 images has a mask"),
        (
            lambda root: [path.unlink() for path in (root / "masks/val").iterdir()],
            "images/val holds no image with a mask that can be used, such as .*images/val/0.png: it has no mask",
        ),
        (lambda root: (root / "classes.txt").write_text("one\n"), "classes.txt names 1 classes"),
        (replaced("classes.txt"), "classes.txt, which names the classes, cannot be read: Is a directory"),
        (dangling("classes.txt"), "classes.txt, which names the classes, cannot be read: No such file"),
        (lambda root: shutil.rmtree(root / "masks/val"), "masks/val is missing, with the masks of .*images/val: add"),
        (lambda root: shutil.rmtree(root / "images/val"), "images/val is missing, with the images of .*masks/val: add"),
        (
            lambda root: (root / "images/val").rename(root / "images/validation"),
            "masks/validation is missing, with the masks of .*images/validation",
        ),
        (
            lambda root: write(root / "masks/train/1.tif", encode(scene(1)[1], "tiff")),
            "masks/train/1.(png and .*1.tif|tif and .*1.png) are both masks of train/1.png: keep one",
        ),
        (
            lambda root: write(root / "images/train/1.jpg", encode(scene(1)[0], "jpeg")),
            "images/train/1.jpg and .*images/train/1.png have the same mask, train/1.png: rename one",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_told_in_one_line(tmp_path, spoil, message):
    write_scenes(tmp_path, 3, 1, 1)
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        open_folder(tmp_path)


def test_other_sources_have_no_masks():
    with pytest.raises(UserError, match="finetune.task=segmentation needs one folder:PATH or tfds:NAME"):
        open_source(DataConfig(source="digits"), masks=True)
