"""An image folder: what is used, what is skipped, and what a person is told."""

import dataclasses
import errno
import os
import re

import numpy as np
import pytest

from experiments.config import DataConfig
from experiments.data.formats import SUFFIXES
from experiments.data.pipeline import evaluation_batches, training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import open_source
from experiments.data.sources.folder import open_folder
from experiments.errors import UserError
from tests.experiments import image_kinds
from tests.experiments.images import broken_inside, encode, gradient, write

ALL = DataConfig(validation_share=0.0, test_share=0.0)
PIXELS = gradient(20, 30)
NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)

GOOD = {
    "a/photo.jpg": encode(PIXELS, "jpeg"),
    "a/deep/er/UPPER.JPEG": encode(gradient(64, 8), "jpeg"),
    "b/picture.png": encode(PIXELS),
    "b/grey.png": encode(gradient(9, 9, 1)),
    "b/alpha.png": encode(np.dstack([PIXELS, PIXELS[..., 0]])),
    "c/old.bmp": encode(PIXELS, "bmp"),
    "c/a name with spaces ü 日本.gif": encode(PIXELS[..., 0], "gif"),
    'c/another\'s "name".png': encode(gradient(31, 17)),
    "c/not what it says.png": encode(PIXELS, "jpeg"),
    "c/broken inside.png": broken_inside(NOISE),
    "c/new.webp": encode(PIXELS, "webp"),
    "c/scan.tiff": encode(PIXELS, "tiff"),
}
SKIPPED = {
    "a/short.jpg": (encode(NOISE, "jpeg")[:-200], "the file is truncated"),
    "a/short.png": (encode(NOISE)[:-200], "the file is truncated"),
    "b/text.jpg": (b"a letter, not a picture", "not an image"),
    "b/nothing.jpg": (b"", "the file is empty"),
    "c/layers.psd": (b"layers", "PSD is a format that cannot be decoded here"),
    "c/map.ppm": (encode(PIXELS, "ppm"), "PPM is a format that cannot be decoded here"),
}
IGNORED = {"a/.hidden.jpg": encode(PIXELS, "jpeg"), ".thumbnails/x.png": encode(PIXELS), "notes.txt": b"no picture"}


def fill(root, files):
    for name, content in files.items():
        write(root / name, content)
    return root


def names(source, split, root):
    return sorted(os.path.relpath(os.fsdecode(path), root) for path in source.splits[split].contents)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("my pictures é")
    return fill(root, {**GOOD, **{name: content for name, (content, _) in SKIPPED.items()}, **IGNORED})


@pytest.fixture(scope="module")
def source(root):
    return open_folder(str(root), ALL)


def test_every_readable_image_at_any_depth_is_used_and_nothing_else(root, source):
    assert names(source, "train", root) == sorted(GOOD)
    assert source.name == f"folder:{root}"


def test_the_sub_folders_of_the_first_level_are_the_classes(root, source):
    assert source.class_names == ("a", "b", "c")
    split = source.splits["train"]
    for path, label in zip(split.contents, split.labels):
        assert os.path.relpath(os.fsdecode(path), root).split(os.sep)[0] == source.class_names[label]


def test_what_is_skipped_is_counted_and_named_with_its_reason(source):
    found, counts, *named = source.notes
    assert found == "12 images, 3 classes from sub-folders"
    assert counts.startswith("skipped 6 files: 2 x the file is truncated; ")
    for reason in {reason for _, reason in SKIPPED.values()} - {"the file is truncated"}:
        assert f"1 x {reason}" in counts
    lines = [f"  {name}: {reason}" for name, (_, reason) in sorted(SKIPPED.items())]
    assert named == [*lines[:5], "  and 1 more"]


def test_all_that_is_used_is_read_but_for_the_file_that_is_broken_inside(root, source):
    split = source.splits["train"]
    preprocessing = Preprocessing(16, 3, (0.0,) * 3, (1.0,) * 3)
    (batch,) = evaluation_batches(split, preprocessing, split.num_examples).as_numpy_iterator()
    for path, image, weight in zip(split.contents, batch["images"], batch["weights"]):
        broken = os.fsdecode(path).endswith("broken inside.png")
        assert weight == (0.0 if broken else 1.0), path
        assert broken != (image.std() > 0.05)


def test_names_that_are_not_utf_8_are_read_and_shown(tmp_path):
    fill(tmp_path, {os.fsdecode(b"caf\xe9/\xe9.png"): encode(PIXELS), "bar/1.png": encode(PIXELS)})
    fill(tmp_path, {os.fsdecode(b"bar/\xe8.png"): b""})
    source = open_folder(tmp_path, ALL)
    assert source.class_names == ("bar", "caf\\xe9")
    assert source.notes[2:] == ("  bar/\\xe8.png: the file is empty",)
    content, label = list(source.splits["train"].in_order().as_numpy_iterator())[1]
    assert (content, label) == (os.path.join(os.fsencode(tmp_path), b"caf\xe9/\xe9.png"), 1)


def test_a_folder_without_anything_to_skip_says_so_in_one_line(tmp_path):
    fill(tmp_path, {f"{i}.png": encode(PIXELS) for i in range(3)})
    assert open_folder(tmp_path, ALL).notes == ("3 images, no labels",)


@pytest.mark.parametrize(
    ("files", "classes"),
    [
        (["x/1.png", "y/2.png"], ("x", "y")),
        (["x/1.png", "y/2.png", "y/z/3.png"], ("x", "y")),
        (["1.png", "2.png"], ()),
        (["x/1.png", "y/2.png", "3.png"], ()),
        (["x/1.png", "x/2.png"], ()),
        (["x/y/1.png", "x/z/2.png"], ()),
    ],
    ids=["two folders", "deeper", "flat", "one beside", "one folder", "one folder of two"],
)
def test_a_folder_is_labelled_if_all_images_lie_in_two_or_more_sub_folders(tmp_path, files, classes):
    fill(tmp_path, dict.fromkeys(files, encode(PIXELS)))
    source = open_folder(tmp_path, ALL)
    assert source.class_names == classes and source.num_classes == len(classes)
    if not classes:
        assert (source.splits["train"].labels == -1).all()
        assert source.notes == (f"{len(files)} images, no labels",)


def test_a_sub_folder_of_broken_images_is_no_class(tmp_path):
    fill(tmp_path, {"x/1.png": encode(PIXELS), "y/2.png": encode(PIXELS), "z/3.png": b"no picture"})
    assert open_folder(tmp_path, ALL).class_names == ("x", "y")


@pytest.mark.parametrize(
    ("labelled", "shares", "sizes"),
    [
        (True, (0.1, 0.2), (28, 4, 8)),
        (True, (0.0, 0.0), (40, 0, 0)),
        (False, (0.1, 0.2), (36, 4, 0)),
        (False, (0.25, 0.0), (30, 10, 0)),
    ],
)
def test_held_out_shares_are_disjoint_and_complete(tmp_path, labelled, shares, sizes):
    folder = "{}/" if labelled else ""
    files = {f"{folder}{i}.png".format(i % 2): encode(PIXELS) for i in range(40)}
    fill(tmp_path, files)
    source = open_folder(tmp_path, DataConfig(validation_share=shares[0], test_share=shares[1]))
    parts = [names(source, name, tmp_path) for name in ("train", "validation", "test")]
    assert tuple(len(part) for part in parts) == sizes
    assert sorted(sum(parts, [])) == sorted(files)
    again = open_folder(tmp_path, DataConfig(validation_share=shares[0], test_share=shares[1]))
    assert [names(again, name, tmp_path) for name in ("train", "validation", "test")] == parts


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {},
            f" holds no image files ({', '.join(SUFFIXES)}).",
        ),
        ({"a.txt": b"text", ".hidden.png": encode(PIXELS)}, " holds no image files"),
        ({"a.jpg": b"text", "b.png": b""}, ": none of its 2 image files can be read, such as a.jpg: not an image"),
    ],
    ids=["empty", "no image", "all broken"],
)
def test_a_folder_without_images_is_refused(tmp_path, files, message):
    fill(tmp_path, files)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}{message}")):
        open_folder(tmp_path, ALL)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=re.escape(f"There is no folder {tmp_path / 'nowhere'}.")):
        open_source(dataclasses.replace(ALL, source=f"folder:{tmp_path / 'nowhere'}"))


def test_a_source_is_opened_by_its_path_with_colons_and_all(tmp_path):
    root = fill(tmp_path / "a:b c", {"1.png": encode(PIXELS)})
    assert open_source(dataclasses.replace(ALL, source=f"folder:{root}")).splits["train"].num_examples == 1


def test_a_linked_folder_is_followed(tmp_path):
    elsewhere = fill(tmp_path / "elsewhere", {"1.png": encode(PIXELS)})
    root = fill(tmp_path / "root", {"x/2.png": encode(PIXELS)})
    (root / "y").symlink_to(elsewhere)
    source = open_folder(root, ALL)
    assert names(source, "train", root) == ["x/2.png", "y/1.png"]


def test_a_link_that_leads_back_is_not_followed(tmp_path):
    root = fill(tmp_path / "root", {"x/1.png": encode(PIXELS), "y/2.png": encode(PIXELS)})
    (root / "x" / "again").symlink_to(root)
    (root / "y" / "itself").symlink_to(root / "y")
    assert names(open_folder(root, ALL), "train", root) == ["x/1.png", "y/2.png"]


def test_links_that_lead_to_each_other_are_followed_once(tmp_path):
    root = fill(tmp_path / "root", {"x/1.png": encode(PIXELS), "y/2.png": encode(PIXELS)})
    (root / "x" / "other").symlink_to(root / "y")
    (root / "y" / "other").symlink_to(root / "x")
    found = ["x/1.png", "x/other/2.png", "y/2.png", "y/other/1.png"]
    assert names(open_folder(root, ALL), "train", root) == found


def test_a_dangling_link_is_skipped_and_named(tmp_path):
    root = fill(tmp_path, {"1.png": encode(PIXELS)})
    (root / "2.png").symlink_to(root / "nowhere.png")
    source = open_folder(root, ALL)
    assert names(source, "train", root) == ["1.png"]
    assert source.notes[1:] == (
        "skipped 1 files: 1 x the file cannot be opened",
        "  2.png: the file cannot be opened",
    )


@pytest.mark.parametrize("target", ["2.png", "3.png", "n" * 300], ids=["itself", "each other", "a long name"])
def test_links_that_lead_nowhere_are_skipped_and_counted_whatever_the_system_says(tmp_path, target):
    root = fill(tmp_path, {"x/1.png": encode(PIXELS), "y/1.png": encode(PIXELS)})
    for name in ("2.png", "y/folder", ".hidden"):
        (root / name).symlink_to(target if name == "2.png" else name.rpartition("/")[2])
    (root / "3.png").symlink_to("2.png")
    source = open_folder(root, ALL)
    assert source.class_names == ("x", "y") and names(source, "train", root) == ["x/1.png", "y/1.png"]
    assert source.notes[1:] == (
        "skipped 3 files: 2 x the file cannot be opened; 1 x a folder or link that cannot be opened",
        "  2.png: the file cannot be opened",
        "  3.png: the file cannot be opened",
        "  y/folder: a folder or link that cannot be opened",
    )


@pytest.fixture
def shut(monkeypatch):
    """Names of folders that this process may not list."""
    scandir, names = os.scandir, set()

    def refusing(path):
        if os.path.basename(path) in names:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    return names


def test_folders_that_cannot_be_listed_are_skipped_and_counted(tmp_path, shut):
    root = fill(tmp_path, {"x/1.png": encode(PIXELS), "y/z/2.png": encode(PIXELS)})
    shut.add("z")
    source = open_folder(root, ALL)
    assert names(source, "train", root) == ["x/1.png"]
    assert source.skipped == (("y/z", "a folder or link that cannot be opened"),)
    shut.add("x")
    message = ", but 2 x a folder or link that cannot be opened, such as x."
    with pytest.raises(UserError, match=re.escape(message)):
        open_folder(root, ALL)
    shut.add(root.name)
    with pytest.raises(UserError, match=re.escape(f"{root} cannot be read: Permission denied.")):
        open_folder(root, ALL)


SPLIT_FILES = ["train/x/1.png", "train/x/deep/2.png", "train/y/3.png", "train/y/4.png", "val/x/5.png", "val/y/6.png"]


@pytest.mark.parametrize(
    ("renamed", "others", "splits", "notes"),
    [
        ({}, ["test/y/7.png"], (4, 2, 1), ["1 classes have no images in test: x"]),
        ({"val": "valid", "train": "Training"}, [], (3, 2, 1), []),
        ({"val": "validation"}, ["other/8.png", "9.png"], (3, 2, 1), ["left out: 2 images beside train, validation"]),
        ({"val": "test"}, [], (3, 1, 2), []),
    ],
    ids=["with test", "other names", "images beside", "without val"],
)
def test_train_and_val_are_splits_and_the_classes_lie_below(tmp_path, renamed, others, splits, notes):
    def rename(file):
        top, *rest = file.split("/")
        return "/".join([renamed.get(top, top), *rest])

    fill(tmp_path, dict.fromkeys([*map(rename, SPLIT_FILES), *others], encode(PIXELS)))
    source = open_folder(tmp_path, DataConfig(validation_share=0.2, test_share=0.2))
    assert source.class_names == ("x", "y")
    found = [names(source, name, tmp_path) for name in ("train", "validation", "test")]
    assert tuple(len(part) for part in found) == splits
    for part, folders in zip(("train", "validation", "test"), (("train",), ("val", "valid", "validation"), ("test",))):
        own = [name for name in map(rename, [*SPLIT_FILES, *others]) if name.split("/")[0].lower() in folders]
        if own and part != "train":
            assert names(source, part, tmp_path) == sorted(own)
        for path, label in zip(source.splits[part].contents, source.splits[part].labels):
            assert os.path.relpath(os.fsdecode(path), tmp_path).split(os.sep)[1] == "xy"[label]
    assert [note for note in source.notes[1:] if not note.startswith("splits from")] == notes


def test_splits_without_classes_are_for_pretraining(tmp_path):
    fill(tmp_path, dict.fromkeys(["train/1.png", "train/2.png", "val/a/3.png"], encode(PIXELS)))
    source = open_folder(tmp_path, DataConfig(validation_share=0.4, test_share=0.5))
    assert source.class_names == () and set(source.splits["validation"].labels) == {-1}
    assert names(source, "train", tmp_path) == ["train/1.png", "train/2.png"] and not source.get("test")


@pytest.mark.parametrize(
    ("files", "folders", "message"),
    [
        (["val/z/7.png"], [], "{root}/val has images of the class z, and {root}/train has none."),
        (
            ["val/7.png"],
            [],
            "{root}/val/7.png is not in a class folder of {root}/val, although {root}/train has classes.",
        ),
        (["training/x/7.png"], [], "{root} has several folders for train: train, training; keep one."),
        (["valid/x/7.png"], [], "{root} has several folders for validation: val, valid; keep one."),
        ([], ["test"], "{root}/test holds no readable image; add images or remove it."),
    ],
)
def test_splits_that_do_not_fit_together_are_refused(tmp_path, files, folders, message):
    fill(tmp_path, dict.fromkeys([*SPLIT_FILES, *files], encode(PIXELS)))
    for folder in folders:
        (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match=re.escape(message.format(root=tmp_path))):
        open_folder(tmp_path, ALL)


def test_a_train_folder_that_holds_all_images_is_the_training_split(tmp_path):
    fill(tmp_path, dict.fromkeys(["train/x/1.png", "train/y/2.png"], encode(PIXELS)))
    source = open_folder(tmp_path, ALL)
    assert source.class_names == ("x", "y") and source.notes[1:] == ("splits from the sub-folders train",)
    fill(tmp_path, {"3.png": encode(PIXELS)})  # beside it: a folder of that name like any other
    source = open_folder(tmp_path, ALL)
    assert source.class_names == () and source.split("train").num_examples == 3


@pytest.mark.parametrize(
    ("files", "sizes", "classes"),
    [
        (["val/x/1.png", "val/y/2.png", "test/x/3.png"], {"validation": 2, "test": 1}, ("x", "y")),
        (["Valid/1.png"], {"validation": 1}, ()),
        (["test/x/1.png", "test/y/2.png"], {"test": 2}, ("x", "y")),
    ],
)
def test_sub_folders_called_like_splits_without_one_to_train_on_are_there_to_evaluate_on(
    tmp_path, files, sizes, classes
):
    fill(tmp_path, dict.fromkeys(files, encode(PIXELS)))
    source = open_folder(tmp_path, ALL)
    assert {name: split.num_examples for name, split in source.splits.items()} == sizes
    assert source.class_names == classes
    message = f"has no train images; it has {', '.join(sizes)}; rename the folder of the training images to train."
    with pytest.raises(UserError, match=message):
        source.split("train")
    fill(tmp_path, {"bus/9.png": encode(PIXELS)})  # then they are like any other
    assert open_folder(tmp_path, ALL).split("train").num_examples == len(files) + 1


def test_images_beside_a_split_are_refused_if_none_are_to_train_on(tmp_path):
    fill(tmp_path, dict.fromkeys(["test/1.png", "2.png"], encode(PIXELS)))
    message = (
        f"{tmp_path} has images in test and outside, but no train folder: move training images to {tmp_path}/train, or "
        f"name one folder, as in folder:{tmp_path}/test."
    )
    with pytest.raises(UserError, match=re.escape(message)):
        open_folder(tmp_path, ALL)


def test_a_share_that_comes_to_no_image_is_noted_and_shares_that_take_all_are_refused(tmp_path):
    fill(tmp_path, dict.fromkeys(["x/1.png", "y/2.png", "y/3.png"], encode(PIXELS)))
    source = open_folder(tmp_path, DataConfig(validation_share=0.1, test_share=0.3))
    assert not source.get("validation") and source.split("test").num_examples == 1
    assert source.notes[1:] == ("no validation images: data.validation_share=0.1 of 3 images comes to none",)
    message = f"folder:{tmp_path}: data.validation_share=0.5 and data.test_share=0.4 leave none of 3 images to train on"
    with pytest.raises(UserError, match=re.escape(message)):
        open_folder(tmp_path, DataConfig(validation_share=0.5, test_share=0.4))


def test_a_class_folder_without_images_is_no_class_and_is_noted(tmp_path):
    fill(tmp_path, {"x/1.png": encode(PIXELS), "y/2.png": encode(PIXELS), "z/3.png": b"no picture", "u/v.txt": b""})
    source = open_folder(tmp_path, ALL)
    assert source.class_names == ("x", "y")
    assert f"2 folders without images are not classes of {tmp_path.name}: u, z" in source.notes


def test_classes_of_which_all_images_are_held_out_are_noted(tmp_path):
    fill(tmp_path, dict.fromkeys([f"{i}/{i}.png" for i in range(8)], encode(PIXELS)))
    source = open_folder(tmp_path, DataConfig(validation_share=0.25, test_share=0.25))
    seen = set(source.splits["train"].labels)
    unseen = [name for label, name in enumerate(source.class_names) if label not in seen]
    assert len(unseen) == 4
    note = f"4 classes have no images left to train on, all of theirs are held out: {', '.join(unseen)}"
    assert source.notes[1:] == (note,)


def test_a_class_called_train_is_a_class(tmp_path):
    fill(tmp_path, dict.fromkeys(["bus/1.png", "train/2.png"], encode(PIXELS)))
    assert open_folder(tmp_path, ALL).class_names == ("bus", "train")


READ = (
    *("jpg", "JPG", "jpeg", "jpe", "jfif", "JFIF", "jfi", "jif", "mpo", "png", "apng", "bmp", "dib", "gif", "webp"),
    *("TIFF", "tif", "heic", "heif", "avif", "jp2", "j2c", "npy"),
)
COUNTED = ("jxl", "svg", "psd", "dds", "fits", "dng", "CR2", "ppm")


def test_a_file_called_like_any_image_is_looked_at_and_its_content_decides(tmp_path):
    good = [f"good.{suffix}" for suffix in READ + COUNTED]
    unknown = {f"unknown.{suffix}": f"{suffix.upper()} is a format that cannot be decoded here" for suffix in COUNTED}
    fill(tmp_path, dict.fromkeys(good, encode(PIXELS, "jpeg")) | dict.fromkeys(unknown, b"what Pillow does not know"))
    fill(tmp_path, dict.fromkeys(["x.txt", "Thumbs.db", ".DS_Store", "._good.jpg"], b"no image"))
    source = open_folder(tmp_path, ALL)
    assert names(source, "train", tmp_path) == sorted(good)
    assert source.skipped == tuple(sorted(unknown.items()))


SYSTEM_FOLDERS = (
    *("@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX"),
    *("~snapshot", "FOUND.000", "RECYCLED", "Network Trash Folder", "@sharebin"),
    *(".thumbnails", ".Trash-1000", ".ipynb_checkpoints", ".@__thumb", ".git"),
)


@pytest.mark.parametrize("folder", SYSTEM_FOLDERS)
@pytest.mark.parametrize("place", ["", "x/"])
def test_folders_that_systems_keep_are_neither_classes_nor_looked_into(tmp_path, folder, place):
    ordinary = dict.fromkeys(["x/1.png", "y/2.png", "recycling/3.png", "@home/4.png"], encode(PIXELS))
    fill(tmp_path, {**ordinary, f"{place}{folder}/1.png/SYNOPHOTO_THUMB_M.jpg": encode(PIXELS, "jpeg")})
    source = open_folder(tmp_path, ALL)
    assert source.class_names == ("@home", "recycling", "x", "y")
    assert names(source, "train", tmp_path) == sorted(ordinary)
    hidden = folder.startswith(".")
    assert source.notes[1:] == (() if hidden else (f"ignored: 1 system folders ({folder})",))


def test_folders_that_systems_keep_do_not_disturb_splits(tmp_path):
    fill(tmp_path, dict.fromkeys([*SPLIT_FILES, "@eaDir/1.png", "train/@eaDir/2.png"], encode(PIXELS)))
    source = open_folder(tmp_path, ALL)
    assert source.class_names == ("x", "y") and source.split("train").num_examples == 4
    assert not any("left out" in note or "no classes" in note for note in source.notes)


def test_a_folder_of_bmp_files_of_16_bits_is_trained_on(tmp_path):
    content = image_kinds.good_kinds()["BMP, 16 bits, 565, header of 40"]
    fill(tmp_path, {f"{i}.bmp": content for i in range(4)})
    split = open_folder(tmp_path, ALL).split("train")
    preprocessing = Preprocessing(16, 3, (0.0,) * 3, (1.0,) * 3)
    (batch,) = training_batches(split, preprocessing, 4, seed=0).take(1).as_numpy_iterator()
    assert batch["weights"].sum() == 4
