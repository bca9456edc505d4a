"""Folders of images with masks, as people have them: complete, with gaps, and damaged."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from experiments.config import DataConfig
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
    assert all(b"/images/" in path for path in source.split("train").contents)


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
    (masks / "6.png").rename(masks / "6.jpg")
    exif = Image.Exif()
    exif.update(TURNED)
    write(tmp_path / "images/train/7.jpg", encode(scene(7)[0], "jpeg", exif=exif))  # upright it is 48 x 40
    (tmp_path / "images/train/7.png").unlink()
    source = open_folder(tmp_path)
    assert mask_names(source, "train") == [("8.png", "8.png")]
    reasons = dict(source.skipped)
    assert {name: reasons[f"train/{name}"] for name in ("0.png", "6.png")} == dict.fromkeys(
        ("0.png", "6.png"), "it has no mask"
    )
    assert reasons["train/1.png"] == "it and its mask train/1.png have different sizes, 40x48 and 40x47"
    assert reasons["train/7.jpg"] == "it and its mask train/7.png have different sizes, 48x40 and 40x48"
    assert (
        reasons["train/2.png"] == reasons["train/4.png"].replace("4.png", "2.png") == "its mask train/2.png is damaged"
    )
    assert reasons["train/3.png"] == "its mask train/3.png: the file is empty"
    assert reasons["train/5.png"].startswith("its mask train/5.png: it has colours")
    assert "skipped 8 files: 2 x it has no mask" in "\n".join(source.notes)


def test_a_number_that_is_no_class_ends_the_start_with_the_file(tmp_path):
    write_scenes(tmp_path, 3, 1, 1)
    image, mask = scene(1)
    mask[5, 5] = 3
    write(tmp_path / "masks/train/1.png", encode(mask))
    with pytest.raises(UserError, match=r"masks/train/1.png has the number 3, which is no class: .*ignore_label=3"):
        open_folder(tmp_path)
    assert open_folder(tmp_path, ignore_label=(3, 250)).class_names == NAMES
    names = write(tmp_path / "names.txt", b"a\nb\nc\nd\n")
    assert open_folder(tmp_path, class_names=str(names)).class_names == tuple("abcd")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "masks").rename(root / "labels"), "has no folders images and masks"),
        (lambda root: [path.unlink() for path in (root / "masks").rglob("*.png")], "none of 5 images has a mask"),
        (
            lambda root: [path.unlink() for path in (root / "masks/val").iterdir()],
            "images/val holds no image with a mask",
        ),
        (lambda root: (root / "classes.txt").write_text("one\n"), "classes.txt names 1 classes"),
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
