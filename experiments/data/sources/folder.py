"""Folders of images: which files are read. `folder_layout` interprets the sub-folders as splits and classes.

Of a folder for segmentation, with the sub-folders `images` and `masks` (see `folder_with_masks`), `images` is read.

Hidden folders and those of operating systems and NAS devices (`SYSTEM_FOLDERS`) are skipped.
"""

import collections
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from experiments.config import DataConfig
from experiments.data.decoding import is_image_name, problem_of
from experiments.data.formats import SUFFIXES
from experiments.data.source import MemorySplit, Source
from experiments.data.sources.folder_layout import Layout, is_hidden, read_labelled_layout, read_layout
from experiments.data.sources.index import look_at, stamp
from experiments.data.sources.text import printable, quoted
from experiments.data.splits import with_held_out
from experiments.data.values import Reading
from experiments.errors import UserError
from experiments.io import local_folder, reason

NAMED_IN_NOTES = 5
IMAGES, MASKS = "images", "masks"  # sub-folders of a folder for segmentation
UNOPENED = "a folder or link that cannot be opened"


def open_folder(path: str | os.PathLike[str], config: DataConfig, reading: Reading | None = None) -> Source:
    """Finds the images of a folder, at any depth.

    Splits and classes follow from the sub-folders, see `read_layout`. Missing splits are drawn from the training images
    at random: `validation_share` of them, and for a folder with labels or masks `test_share`. Classes that are left
    without training images are noted.

    Files with the suffix of an image that are damaged, not an image or of a kind that cannot be decoded (see
    `decoding`) are skipped, counted in the notes and listed in `skipped`, as are images beside the folders of the
    splits, and folders and links that cannot be opened. Hidden files and folders, and those of operating systems, are
    ignored. A second start opens only files that changed, see `index`.

    Args:
        path: of the folder.
        config: a `DataConfig`.
        reading: how the files will be read, if not by the configuration.

    Raises:
        UserError: if the folder does not exist, cannot be read or holds no image, if its splits, classes and labels
            file do not fit together, or if the shares leave no image to train on.
    """
    root = local_folder(path)
    with_masks = has_masks(root)
    root = root / IMAGES if with_masks else root
    good, skipped, system_folders = readable_files(root, reading or Reading.of(config))
    if config.labels_file:
        layout = read_labelled_layout(root, good, skipped, config.labels_file)
    else:
        layout = read_layout(root, good)
    splits = {name: split_of_files(root, *examples) for name, examples in layout.splits.items()}
    splits, too_small = with_held_out(splits, config, bool(layout.class_names) or with_masks, f"folder:{root}")
    labelling = f"{len(layout.class_names)} classes from {layout.labels_from}" if layout.class_names else "no labels"
    notes = (
        f"{len(good):,} images, {labelling}",
        *(["the masks beside them are not read"] if with_masks else []),
        *layout.notes,
        *notes_on_skipped(skipped, system_folders),
        *too_small,
        *(_notes_on_training(splits["train"], layout) if "train" in splits else ()),
    )
    return Source(
        printable(f"folder:{root}"),
        splits,
        tuple(map(printable, layout.class_names)),
        tuple(map(printable, notes)),
        tuple((printable(file), printable(why)) for file, why in _left_out(good, layout, skipped)),
        layout.label_sets,
    )


def has_masks(root: pathlib.Path) -> bool:
    """Whether a folder is one of images with masks, see `experiments.data.sources.folder_with_masks`."""
    return os.path.isdir(root / IMAGES) and os.path.isdir(root / MASKS)


def readable_files(root: pathlib.Path, reading: Reading) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """Returns the readable image files, the others with their problems, and the folders of the system.

    Files are texts, relative to the root. Folders that cannot be opened are among the others.

    Raises:
        UserError: if no image can be read.
    """
    stamps, unopened, system_folders = image_files(root)
    if not stamps:
        but = f", but {len(unopened):,} x {UNOPENED}, such as {unopened[0]}" if unopened else ""
        raise UserError(f"{root} holds no image files ({', '.join(SUFFIXES)}){but}.")
    problems = look_at(
        root,
        stamps,
        find=lambda file: problem_of(root / file, reading),
        rules=repr(reading),
        keep=lambda problem: not problem,  # others may become readable without changing, such as by new permissions
    )
    good = [file for file, problem in problems.items() if not problem]
    skipped = [(file, problem) for file, problem in problems.items() if problem]
    if not good:
        raise UserError(
            f"{root}: none of its {len(stamps):,} image files can be read, such as {': '.join(skipped[0])}."
        )
    return good, skipped + [(name, UNOPENED) for name in unopened], system_folders


def split_of_files(root: pathlib.Path, files: Iterable[str], labels: np.ndarray) -> MemorySplit:
    """Returns the split of some files, relative to the root, with labels `(N,)`."""
    paths = np.array([os.fsencode(f"{root}{os.sep}{file}") for file in files], dtype=object)
    return MemorySplit(paths, labels, are_paths=True)


def image_files(root: pathlib.Path) -> tuple[dict[str, str], list[str], list[str]]:
    """Lists the image files of a folder, at any depth.

    Returns:
        `({image file: stamp}, unopened, system folders)`, of names relative to the root: the stamps are those of
        `index.stamp`, and `unopened` are folders, and links that may lead to folders, that cannot be opened. The names
        of skipped system folders are without those of the folders above.

    Raises:
        UserError: if the root itself cannot be listed.
    """
    now = time.time_ns()
    found, unopened, system_folders, waiting = {}, [], [], [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise UserError(f"{root} cannot be read: {reason(error)}.") from error
            unopened.append(folder.rstrip(os.sep))
            continue
        subfolders = []
        for entry in entries:
            is_folder = _is_folder(entry)
            if not is_folder and is_image_name(entry.name):
                found[folder + entry.name] = stamp(entry, now)
            elif is_folder is None and not is_hidden(entry.name):
                unopened.append(folder + entry.name)
            elif is_folder and not is_hidden(entry.name):
                subfolders.append(entry)
            elif is_folder and not entry.name.startswith("."):
                system_folders.append(entry.name)
        below = [entry for entry in subfolders if not (entry.is_symlink() and _leads_back(root, entry.path))]
        waiting += [folder + entry.name + os.sep for entry in reversed(below)]
    return found, unopened, system_folders


def _is_folder(entry: os.DirEntry[str]) -> bool | None:
    """Whether an `os.DirEntry` is a folder; None if that cannot be known, as of links in a circle."""
    try:
        return entry.is_dir()
    except OSError:
        return None


def _leads_back(root: pathlib.Path, link: str) -> bool:
    """Whether a link leads to an ancestor of itself, which would be a cycle."""
    path = pathlib.Path(link)
    target = path.resolve()
    way = [passed.resolve() for passed in path.parents if passed == root or root in passed.parents]
    return any(target == passed or target in passed.parents for passed in way)


def _left_out(good: Iterable[str], layout: Layout, skipped: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    used = {file for files, _ in layout.splits.values() for file in files}
    beside = [(file, layout.why_left_out) for file in good if file not in used]
    return sorted([*skipped, *beside])


def notes_on_skipped(skipped: Sequence[tuple[str, str]], system_folders: Sequence[str]) -> list[str]:
    """Returns lines for the user about files that are skipped, `[(file, problem), ...]`, and folders of systems."""
    notes = []
    if system_folders:
        kinds = ", ".join(sorted(set(system_folders)))
        notes.append(f"ignored: {len(system_folders):,} system folders ({kinds})")
    if skipped:
        reasons = collections.Counter(problem for _, problem in skipped)
        counts = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        notes.append(f"skipped {len(skipped):,} files: {counts}")
        notes += [f"  {file}: {problem}" for file, problem in skipped[:NAMED_IN_NOTES]]
        if len(skipped) > NAMED_IN_NOTES:
            notes.append(f"  and {len(skipped) - NAMED_IN_NOTES:,} more")
    return notes


def _notes_on_training(train: MemorySplit, layout: Layout) -> Iterator[str]:
    seen = set(train.labels.tolist())
    if layout.label_sets is not None:
        seen = set(np.flatnonzero(layout.label_sets[sorted(seen)].any(axis=0)).tolist())
    if unseen := [name for label, name in enumerate(layout.class_names) if label not in seen]:
        yield (
            f"{len(unseen):,} classes have no images left to train on, all of theirs are held out: "
            f"{', '.join(map(quoted, unseen[:NAMED_IN_NOTES]))}"
        )
