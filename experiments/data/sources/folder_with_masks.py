"""Folders of images with masks, for segmentation: `images/` and `masks/`, with matching file names.

    PATH/images/train/one.jpg    PATH/masks/train/one.png
    PATH/images/val/two.jpg      PATH/masks/val/two.tif
    PATH/classes.txt

Images have any format that is read, at any depth; the mask of an image has its path, up to the suffix. Splits are those
of `experiments.data.sources.folder`, by the sub-folders of `images/`; what is missing is held out.

When a folder is opened, every image and mask that is new or has changed is checked. An image is skipped, counted and
named if its mask is missing, cannot be read, is not a mask, or differs in size from the image (upright). A number that
is neither a class nor ignored is an error: the names or `data.ignore_label` are wrong, and every image may be affected.
"""

import os
import pathlib
import time

import numpy as np
from PIL import Image

from experiments.config import MAX_PIXELS
from experiments.data.formats import UnreadableError, orientation_of, read_header, turns
from experiments.data.segmentation_masks import CLASSES, MOST_CLASSES, SUFFIXES, ClassTable, Masks, read_numbers
from experiments.data.source import Source
from experiments.data.sources.folder import (
    IMAGES,
    MASKS,
    has_masks,
    notes_on_skipped,
    printable,
    readable_files,
    split_of_files,
)
from experiments.data.sources.folder_layout import is_below, split_folders
from experiments.data.sources.index import look_at, stamp
from experiments.data.splits import with_held_out
from experiments.data.values import Reading
from experiments.errors import UserError
from experiments.io import local_folder


def open_folder_with_masks(path, config):
    """Finds the images with masks of a folder.

    Args:
        path: of the folder.
        config: a `DataConfig`.

    Returns:
        A `Source` with `masks`; the label of an image is the index of its mask.

    Raises:
        UserError: if the folder has no images with masks, or a mask has a number without a class.
    """
    root = local_folder(path)
    if not has_masks(root):
        raise UserError(f"{root} has no folders {IMAGES} and {MASKS}, which a segmentation learns from.")
    images = root / IMAGES
    files, skipped, system_folders = readable_files(images, Reading.of(config))
    mask_of = _masks_by_image(root / MASKS, files)
    found = _look_at_masks(root, files, mask_of, config)
    skipped += [(file, what) for file, what in found.items() if isinstance(what, str)]
    good = [file for file in files if not isinstance(found[file], str)]
    if not good:
        why = f", such as {images / skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise UserError(f"{root}: none of {len(skipped):,} images has a mask that can be used{why}.")
    table = _class_table(root, config, {number for file in good for number in found[file]})
    for file in good:
        if (number := table.unknown(found[file])) is not None:
            raise UserError(
                f"{root / MASKS / mask_of[file]} has the number {number}, which is no class: name it in "
                f"data.class_names, or leave its pixels out with data.ignore_label={number}."
            )
    folders = split_folders(images, good) or {"train": ""}
    paths = np.array([os.fsencode(root / MASKS / mask_of[file]) for file in good], dtype=object)
    splits = {}
    for split, base in folders.items():
        chosen = [i for i, file in enumerate(good) if is_below(base, file)]
        if not chosen:
            raise UserError(f"{images / base} holds no image with a mask that can be used; fill or remove it.")
        splits[split] = split_of_files(images, [good[i] for i in chosen], np.array(chosen))
    shares = {"validation": config.validation_share, "test": config.test_share}
    splits, notes = with_held_out(splits, shares, f"folder:{root}")
    beside = [file for file in good if not any(is_below(base, file) for base in folders.values())]
    skipped += [(file, "it lies beside the folders of the splits") for file in beside]
    shown = ", ".join(table.names[:8]) + (", ..." if len(table.names) > 8 else "")
    notes = (
        f"{len(good):,} images with masks, {len(table.names)} classes: {shown}",
        *([f"ignored in the masks: {', '.join(map(str, table.ignored))}"] if table.ignored else []),
        *notes,
        *notes_on_skipped(skipped, system_folders),
    )
    return Source(
        printable(f"folder:{root}"),
        splits,
        table.names,
        tuple(map(printable, notes)),
        tuple(tuple(map(printable, pair)) for pair in sorted(skipped)),
        masks=Masks(table, paths, config.max_pixels),
    )


def _masks_by_image(root, files):
    """Returns the path of the mask of each image that has one, relative to the folder of masks."""
    folders = {str(pathlib.PurePath(file).parent) for file in files}
    masks = {}
    for folder in sorted(folders):
        try:
            names = sorted(os.listdir(root / folder))
        except OSError:
            continue
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                masks.setdefault(os.path.join(folder, stem), os.path.normpath(os.path.join(folder, name)))
    keys = {file: os.path.join(str(pathlib.PurePath(file).parent), pathlib.PurePath(file).stem) for file in files}
    return {file: masks[key] for file, key in keys.items() if key in masks}


def _look_at_masks(root, files, mask_of, config):
    """Returns `{image: why it cannot be used, or the numbers in its mask}`."""
    now = time.time_ns()

    def find(file):
        if file not in mask_of:
            return "it has no mask"
        try:
            numbers = read_numbers((root / MASKS / mask_of[file]).read_bytes(), config.max_pixels)
            size = _size_of(root / IMAGES / file, config.pages)
        except UnreadableError as error:
            return f"its mask {mask_of[file]}: {error}"
        except Exception:  # whatever the damage leads the libraries to
            return f"its mask {mask_of[file]} is damaged"
        if numbers.shape != size:
            sizes = " and ".join(f"{height}x{width}" for height, width in (size, numbers.shape))
            return f"it and its mask {mask_of[file]} have different sizes, {sizes}"
        present = np.unique(numbers).tolist()
        return present if len(present) <= MOST_CLASSES else f"its mask {mask_of[file]} has {len(present):,} numbers"

    def stamp_of(file):
        both = [stamp(root / IMAGES / file, now), stamp(root / MASKS / mask_of[file], now) if file in mask_of else "-"]
        return " ".join(both) if all(both) else ""

    stamps = {file: stamp_of(file) for file in files}
    rules = f"masks, up to {config.max_pixels} of {MAX_PIXELS} pixels, {config.pages}"
    return look_at(root, stamps, find, rules, keep=lambda what: not isinstance(what, str))


def _size_of(path, pages):
    """Returns `(height, width)` of the upright image of a file."""
    with open(path, "rb") as file:
        name, header, decode = read_header(file, pages)
        if name in ("TIFF", "NPY"):
            orientation = decode().orientation
        else:
            with Image.open(path) as image:
                orientation = orientation_of(image)
    return header.size[::-1] if turns(orientation)[0] else tuple(header.size)


def named_classes(path, ignored):
    """Returns the `ClassTable` of the file of names in a folder of images with masks, or None without such a file."""
    names = local_folder(path) / CLASSES
    return ClassTable.read(names, ignored) if names.is_file() else None


def _class_table(root, config, numbers):
    """Returns the `ClassTable` of a folder, by its file of names or by the numbers that occur."""
    if config.class_names:
        return ClassTable.read(config.class_names, config.ignore_label)
    if named := named_classes(root, config.ignore_label):
        return named
    table = ClassTable.of_numbers(numbers, config.ignore_label)
    if not 2 <= len(table.names) <= MOST_CLASSES:
        raise UserError(
            f"{root / MASKS} has {len(table.names)} numbers beside data.ignore_label={config.ignore_label}: a "
            f"segmentation has 2 to {MOST_CLASSES} classes."
        )
    return table
