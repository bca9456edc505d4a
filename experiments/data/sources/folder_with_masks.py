"""Folders of images with masks, for segmentation: `images/` and `masks/`, with matching file names.

    PATH/images/train/one.jpg    PATH/masks/train/one.png
    PATH/images/val/two.jpg      PATH/masks/val/two.tif
    PATH/classes.txt

Images have any format that is read, at any depth; the mask of an image has its path, up to the suffix. Splits are those
of `experiments.data.sources.folder`, by the sub-folders of `images/`, which `masks/` has too; what is missing is held
out.

When a folder is opened, every image and mask that is new or has changed is checked. An image is skipped, counted and
named if its mask is missing, cannot be read, is not a mask, or differs in size from the image (upright). Masks without
an image are counted. Two images or two masks of the same path up to the suffix are an error, as is a number that is
neither a class nor ignored: the names or `data.ignore_label` are wrong, and every image may be affected.
"""

import os
import pathlib
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from experiments.config import LARGEST_NUMBER, MAX_PIXELS, DataConfig
from experiments.data.formats import UnreadableError, orientation_of, read_header, turns
from experiments.data.segmentation_masks import CLASSES, MOST_CLASSES, SUFFIXES, ClassTable, Masks, read_numbers
from experiments.data.source import MemorySplit, Source
from experiments.data.sources.folder import (
    IMAGES,
    MASKS,
    NAMED_IN_NOTES,
    UNOPENED,
    has_masks,
    image_files,
    notes_on_skipped,
    readable_files,
    split_of_files,
)
from experiments.data.sources.folder_layout import is_below, split_folders
from experiments.data.sources.index import look_at, stamp
from experiments.data.sources.labels_file import SPLITS
from experiments.data.sources.text import printable
from experiments.data.splits import with_held_out
from experiments.data.values import Reading
from experiments.errors import UserError
from experiments.io import local_folder


def open_folder_with_masks(path: str | os.PathLike[str], config: DataConfig) -> Source:
    """Finds the images with masks of a folder.

    Args:
        path: of the folder.
        config: a `DataConfig`.

    Returns:
        A `Source` with `masks`; the label of an image is the index of its mask.

    Raises:
        UserError: if the folder has no images with masks, images and masks do not fit together, a mask has a number
            without a class, or the training masks have no pixel that counts.
    """
    root = local_folder(path)
    if not has_masks(root):
        raise UserError(f"{root} has no folders {IMAGES} and {MASKS}, which segmentation needs.")
    images = root / IMAGES
    files, unreadable, system_folders = readable_files(images, Reading.of(config))
    masks, unopened, _ = image_files(root / MASKS)
    _check_splits(root, files, masks)
    mask_of = _masks_by_image(root, files, masks)
    found = _look_at_masks(root, files, mask_of, masks, config)
    skipped = [*unreadable, *((file, what) for file, what in found.items() if isinstance(what, str))]
    skipped += [(os.path.join(MASKS, name), UNOPENED) for name in unopened]
    good = [file for file in files if not isinstance(found[file], str)]
    if not good:
        raise UserError(
            f"{root}: none of {len(skipped):,} images has a mask that can be used{_such_as(images, skipped)}."
        )
    table = _class_table(root, config, {root / MASKS / mask_of[file]: found[file] for file in good})
    folders = split_folders(images, good) or {"train": ""}
    paths = np.array([os.fsencode(root / MASKS / mask_of[file]) for file in good], dtype=object)
    labels, splits = {file: i for i, file in enumerate(good)}, {}
    for split, base in folders.items():
        chosen = [file for file in files if is_below(base, file)]
        if not any(file in labels for file in chosen):
            why = _such_as(images, [pair for pair in skipped if is_below(base, pair[0])])
            raise UserError(f"{images / base} holds no image with a mask that can be used{why}; fill or remove it.")
        splits[split] = split_of_files(images, chosen, np.array([labels.get(file, -1) for file in chosen]))
    # Images without a mask take part, so that pretraining on the images holds out the same.
    splits, too_small = with_held_out(splits, config, True, f"folder:{root}")
    splits = {name: split.take(np.flatnonzero(split.labels >= 0)) for name, split in splits.items()}
    if "train" in splits and not splits["train"].num_examples:
        raise UserError(f"{root}: no image with a mask that can be used is left to train on; add some.")
    beside = [file for file in good if not any(is_below(base, file) for base in folders.values())]
    skipped += [(file, "it lies beside the folders of the splits") for file in beside]
    of_images = {_stem(file) for file in (*files, *(file for file, _ in unreadable))}
    without = sum(file.lower().endswith(SUFFIXES) and _stem(file) not in of_images for file in masks)
    shown = ", ".join(table.names[:8]) + (", ..." if len(table.names) > 8 else "")
    notes = (
        f"{len(good):,} images with masks, {len(table.names)} classes: {shown}",
        *([f"ignored in the masks: {', '.join(map(str, table.ignored))}"] if table.ignored else []),
        *_notes_on_classes(root, splits, [found[file] for file in good], table),
        *([f"left out: {without:,} masks without an image"] if without else []),
        *too_small,
        *notes_on_skipped(skipped, system_folders),
    )
    return Source(
        printable(f"folder:{root}"),
        splits,
        table.names,
        tuple(map(printable, notes)),
        tuple((printable(file), printable(why)) for file, why in sorted(skipped)),
        masks=Masks(table, paths, config.max_pixels),
    )


def _such_as(images: pathlib.Path, skipped: Sequence[tuple[str, str]]) -> str:
    return f", such as {images / skipped[0][0]}: {skipped[0][1]}" if skipped else ""


def _check_splits(root: pathlib.Path, files: Iterable[str], listed: Iterable[str]) -> None:
    """Raises UserError if `images` has the folder of a split and `masks` has not, or the reverse."""
    of_images = split_folders(root / IMAGES, files).values()
    of_masks = {file.partition(os.sep)[0] for file in listed if os.sep in file}
    of_splits = {folder for folder in of_masks if folder.lower() in SPLITS}
    for kind, other, folders in ((MASKS, IMAGES, of_images), (IMAGES, MASKS, of_splits)):
        if missing := sorted(folder for folder in folders if not os.path.isdir(root / kind / folder)):
            raise UserError(
                f"{root / kind / missing[0]} is missing, with the {kind} of {root / other / missing[0]}: add it, or "
                "remove the other."
            )


def _masks_by_image(root: pathlib.Path, files: Iterable[str], listed: Iterable[str]) -> dict[str, str]:
    """Returns the mask of each image that has one, by name, of the files `listed` below the folder of masks.

    A file of another format counts where there is no mask, so that reading it tells what is wrong.
    """
    masks: dict[str, list[str]]
    others: dict[str, list[str]]
    masks, others = {}, {}
    for file in listed:
        kind = masks if file.lower().endswith(SUFFIXES) else others
        kind.setdefault(_stem(file), []).append(file)
    mask_of = {}
    for file in files:
        found = masks.get(_stem(file)) or others.get(_stem(file), [])[:1]
        if len(found) > 1:
            raise UserError(
                f"{root / MASKS / found[0]} and {root / MASKS / found[1]} are both masks of {file}: keep one."
            )
        if found:
            mask_of[file] = found[0]
    images: dict[str, str] = {}
    for file, mask in mask_of.items():
        if (other := images.setdefault(mask, file)) != file:
            raise UserError(
                f"{root / IMAGES / other} and {root / IMAGES / file} have the same mask, {mask}: rename one."
            )
    return mask_of


def _stem(file: str) -> str:
    """The name of a file without its suffix; macOS writes accents as characters of their own."""
    return unicodedata.normalize("NFC", os.path.splitext(file)[0])


def _notes_on_classes(
    root: pathlib.Path, splits: Mapping[str, MemorySplit], numbers: Sequence[list[int]], table: ClassTable
) -> Iterator[str]:
    """Yields lines about splits whose masks lack classes; `numbers` are those in each mask, by label.

    Raises:
        UserError: if no pixel of the training masks counts.
    """
    for name, split in splits.items():
        if not split.num_examples:
            continue
        present = {number for label in split.labels for number in numbers[label]}
        absent = [one for number, one in zip(table.numbers, table.names) if number not in present]
        if len(absent) == len(table.names):
            if name == "train":
                raise UserError(f"{root}: data.ignore_label={table.ignored} leaves no pixel to train on.")
            yield f"no pixel of the {name} masks counts: all are ignored"
        elif absent and name == "train":
            yield f"{len(absent):,} classes have no pixels to train on: {', '.join(absent[:NAMED_IN_NOTES])}"


def _look_at_masks(
    root: pathlib.Path,
    files: Iterable[str],
    mask_of: Mapping[str, str],
    stamps_of_masks: Mapping[str, str],
    config: DataConfig,
) -> dict[str, Any]:
    """Returns `{image: why it cannot be used, or the numbers in its mask}`."""
    now = time.time_ns()

    def find(file: str) -> str | list[int]:
        if file not in mask_of:
            return "it has no mask"
        mask = root / MASKS / mask_of[file]
        if not mask.is_file():  # opening a pipe would block
            return f"its mask {mask_of[file]} is not a file"
        try:
            numbers = read_numbers(mask.read_bytes(), config.max_pixels)
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

    def stamp_of(file: str) -> str:
        both = [stamp(root / IMAGES / file, now), stamps_of_masks[mask_of[file]] if file in mask_of else "-"]
        return " ".join(both) if all(both) else ""

    stamps = {file: stamp_of(file) for file in files}
    rules = f"masks, up to {config.max_pixels} of {MAX_PIXELS} pixels, {config.pages}"
    return look_at(root, stamps, find, rules, keep=lambda what: not isinstance(what, str))


def _size_of(path: pathlib.Path, pages: str) -> tuple[int, ...]:
    """Returns `(height, width)` of the upright image of a file."""
    with open(path, "rb") as file:
        name, header, decode = read_header(file, pages)
        if name in ("TIFF", "NPY"):
            orientation = decode().orientation
        else:
            with Image.open(path) as image:
                orientation = orientation_of(image)
    return header.size[::-1] if turns(orientation)[0] else tuple(header.size)


def named_classes(path: str | os.PathLike[str], ignored: tuple[int, ...]) -> ClassTable | None:
    """Returns the `ClassTable` of the file of names in a folder of images with masks, or None without such a file."""
    names = local_folder(path) / CLASSES
    return ClassTable.read(names, ignored) if os.path.lexists(names) else None


def _class_table(root: pathlib.Path, config: DataConfig, numbers_of: Mapping[pathlib.Path, list[int]]) -> ClassTable:
    """Returns the `ClassTable` of a folder, by its file of names or by the numbers in each mask, `{path: numbers}`."""
    for mask, numbers in numbers_of.items():
        if other := [number for number in numbers if not 0 <= number <= LARGEST_NUMBER]:
            raise UserError(f"{mask} has the number {other[0]}: save it with numbers from 0 to {LARGEST_NUMBER}.")
    table: ClassTable | None
    if config.class_names:
        table = ClassTable.read(config.class_names, config.ignore_label)
    elif not (table := named_classes(root, config.ignore_label)):
        table = ClassTable.of_numbers(set().union(*numbers_of.values()), config.ignore_label)
        if not 2 <= len(table.names) <= MOST_CLASSES:
            raise UserError(
                f"{root / MASKS} has {len(table.names)} numbers beside data.ignore_label={config.ignore_label}: a "
                f"segmentation has 2 to {MOST_CLASSES} classes."
            )
    for mask, numbers in numbers_of.items():
        if (number := table.unknown(numbers)) is not None:
            raise UserError(
                f"{mask} has the number {number}, which is not a class: correct the mask or, before training, name the "
                f"class in {CLASSES} or leave its pixels out with data.ignore_label={number}."
            )
    return table
