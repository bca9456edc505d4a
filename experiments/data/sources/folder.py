"""Folders of images: which files are images, and what their sub-folders mean: splits and classes.

Splits: where a folder has a sub-folder `train` (or `training`) and one or both of `val` (or `valid`, `validation`) and
`test`, in upper or lower case, these are the splits, and images beside them are left out and counted. Each of them has
to hold an image. A `train` in which all images lie is the training split as well. Where all sub-folders with images are
called like splits and none of them is `train`, what to train on is unclear: an error.

Classes: the folder, or with splits its `train`, is labelled if every image lies in one of two or more sub-folders;
those of the first level are the classes. Images of other splits have to lie in folders of the same names. A class
folder without a readable image is left out; a class may have no images in another split. Both are noted. A labels file
replaces the class folders and, where it names splits, the folders of the splits.

Of a folder for segmentation, with the sub-folders `images` and `masks` (see `folder_with_masks`), `images` is read.

Hidden folders and those of operating systems and NAS devices (`SYSTEM_FOLDERS`) are skipped.
"""

import collections
import dataclasses
import os
import pathlib
import re
import time

import numpy as np

from experiments.data.decoding import is_image_name, problem_of
from experiments.data.formats import SUFFIXES
from experiments.data.source import MemorySplit, Source
from experiments.data.sources.index import look_at, stamp
from experiments.data.sources.labels_file import SPLITS, encode_labels, read_labels
from experiments.data.splits import UNLABELLED, with_held_out
from experiments.data.values import Reading
from experiments.errors import UserError
from experiments.io import local_folder

NAMED_IN_NOTES = 5
IMAGES, MASKS = "images", "masks"  # sub-folders of a folder for segmentation


def open_folder(path, config):
    """Reads which images a folder holds, at any depth.

    Splits and classes follow from the sub-folders, see `read_layout`. What is missing is held out from the training
    images, at random: `validation_share` of them, and of a labelled folder `test_share`. Classes of which this leaves
    no image to train on are noted.

    Files that are called like images, and are none, broken or of a kind that cannot be decoded (see `decoding`) are
    skipped, counted in the notes and listed in `skipped`, as are images that lie beside the splits. Hidden files and
    folders, and folders that systems keep, are not looked at. A second start does not open readable files again unless
    they changed, see `index`.

    Args:
        path: of the folder.
        config: a `DataConfig`.

    Raises:
        UserError: if the folder does not exist, holds no image, or its splits and classes or the labels file do not fit
            together, or the shares leave none to train on.
    """
    root = local_folder(path)
    if has_masks(root):
        root = root / IMAGES
    good, skipped, system_folders = readable_files(root, Reading.of(config))
    if config.labels_file:
        layout = read_labelled_layout(root, good, skipped, config.labels_file)
    else:
        layout = read_layout(root, good)
    splits = {name: split_of_files(root, *examples) for name, examples in layout.splits.items()}
    shares = {"validation": config.validation_share, "test": config.test_share if layout.class_names else 0.0}
    splits, too_small = with_held_out(splits, shares, f"folder:{root}")
    notes = (
        *_notes(good, layout, skipped, system_folders),
        *too_small,
        *_notes_on_training(splits["train"], layout),
    )
    return Source(
        printable(f"folder:{root}"),
        splits,
        tuple(map(printable, layout.class_names)),
        tuple(map(printable, notes)),
        tuple(tuple(map(printable, pair)) for pair in _left_out(good, layout, skipped)),
        layout.label_sets,
    )


def has_masks(root):
    """Whether a folder is one of images with masks, see `experiments.data.sources.folder_with_masks`."""
    return (root / IMAGES).is_dir() and (root / MASKS).is_dir()


def readable_files(root, reading):
    """Returns the readable image files, the others with their problems, and the folders of the system.

    Files are texts, relative to the root.
    """
    stamps, system_folders = _image_files(root)
    problems = look_at(
        root,
        stamps,
        find=lambda file: problem_of(root / file, reading),
        rules=repr(reading),
        keep=lambda problem: not problem,  # others may become readable without changing, as by a new right to read them
    )
    skipped = [(file, problem) for file, problem in problems.items() if problem]
    if len(skipped) == len(stamps):
        found = f"none of its {len(stamps)} image files can be read" if stamps else "it holds no image file"
        raise UserError(f"{root}: {found} ({', '.join(SUFFIXES)}).")
    return [file for file, problem in problems.items() if not problem], skipped, system_folders


def printable(text):
    """Shows the bytes of names that are not UTF-8 as `\\xe9`: nothing could print or write them as they are."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def split_of_files(root, files, labels):
    """Returns the split of some files, relative to the root, with labels `(N,)`."""
    paths = np.array([os.fsencode(f"{root}{os.sep}{file}") for file in files], dtype=object)
    return MemorySplit(paths, labels, are_paths=True)


def _image_files(root):
    """Returns the files that are called like images, and the names of folders that a system keeps, not looked into.

    Files are `{path relative to the root: stamp}`, see `index.stamp`: those of a folder before those below.
    """
    now = time.time_ns()
    found, system_folders, waiting = {}, [], [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                entries = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        subfolders = []
        for entry in entries:
            if not entry.is_dir():
                if is_image_name(entry.name):
                    found[folder + entry.name] = stamp(entry, now)
            elif not is_hidden(entry.name):
                subfolders.append(entry)
            elif not entry.name.startswith("."):
                system_folders.append(entry.name)
        below = [entry for entry in subfolders if not (entry.is_symlink() and _leads_back(root, entry.path))]
        waiting += [folder + entry.name + os.sep for entry in reversed(below)]
    return found, system_folders


def _leads_back(root, link):
    """Whether a link leads to one of the folders on the way to it from the root, or to one above them."""
    path = pathlib.Path(link)
    target = path.resolve()
    way = [passed.resolve() for passed in path.parents if passed == root or root in passed.parents]
    return any(target == passed or target in passed.parents for passed in way)


def _left_out(good, layout, skipped):
    used = {file for files, _ in layout.splits.values() for file in files}
    beside = [(file, layout.why_left_out) for file in good if file not in used]
    return sorted([*skipped, *beside])


def _notes(good, layout, skipped, system_folders):
    labelling = f"{len(layout.class_names)} classes from {layout.labels_from}" if layout.class_names else "no labels"
    return f"{len(good):,} images, {labelling}", *layout.notes, *notes_on_skipped(skipped, system_folders)


def notes_on_skipped(skipped, system_folders):
    """Returns lines for the user about files that are skipped, `[(file, problem), ...]`, and folders of systems."""
    notes = []
    if system_folders:
        kinds = ", ".join(sorted(set(system_folders)))
        notes.append(f"not looked into: {len(system_folders):,} folders that systems keep ({kinds})")
    if skipped:
        reasons = collections.Counter(problem for _, problem in skipped)
        counts = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        notes.append(f"skipped {len(skipped):,} files: {counts}")
        notes += [f"  {file}: {problem}" for file, problem in skipped[:NAMED_IN_NOTES]]
        if len(skipped) > NAMED_IN_NOTES:
            notes.append(f"  and {len(skipped) - NAMED_IN_NOTES:,} more")
    return notes


def _notes_on_training(train, layout):
    seen = set(train.labels.tolist())
    if layout.label_sets is not None:
        seen = set(np.flatnonzero(layout.label_sets[sorted(seen)].any(axis=0)).tolist())
    if unseen := [name for label, name in enumerate(layout.class_names) if label not in seen]:
        yield (
            f"{len(unseen):,} classes have no images left to train on, all of theirs are held out: "
            f"{', '.join(unseen[:NAMED_IN_NOTES])}"
        )


# Thumbnails, trash, snapshots and copies of NAS devices, Windows, macOS, Linux and version control, in lower case.
SYSTEM_FOLDERS = re.compile(
    r"@eadir|@recycle|@recently-snapshot|@sharebin|@transcode|@tmp|#recycle|#snapshot|~snapshot|\$recycle\.bin|recycled|"
    r"recycler|found\.\d{3}|system volume information|lost\+found|network trash folder|temporary items|__macosx|"
    r"__pycache__|cvs"
)


def is_hidden(folder):
    """Whether a folder of this name holds no images of the user's: hidden, or one that a system keeps."""
    return folder.startswith(".") or SYSTEM_FOLDERS.fullmatch(folder.lower()) is not None


@dataclasses.dataclass(frozen=True)
class Layout:
    """What was found.

    Args:
        splits: `{split: (files, labels)}`, of files relative to the folder and `labels` `(N,)` int64; `train` alone in
            a folder without splits.
        class_names: names of the classes; empty without labels.
        notes: lines for the user.
        label_sets: see `Source`.
        labels_from: what the classes follow from.
        why_left_out: reason for which images belong to no split.
    """

    splits: dict
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    label_sets: np.ndarray | None = None
    labels_from: str = "sub-folders"
    why_left_out: str = "it lies beside the folders of the splits"


def read_layout(root, files):
    """Returns the `Layout` of readable image files below a folder, which are texts relative to it.

    Raises:
        UserError: if the splits cannot be told apart, lack images, or differ in their classes.
    """
    folders = split_folders(root, files)
    bases = folders or {"train": ""}
    members = {split: [file for file in files if is_below(base, file)] for split, base in bases.items()}
    for split, base in bases.items():
        if not members[split]:
            raise UserError(f"{root / base} holds no image that can be read; fill or remove it.")
    notes = [f"splits from the sub-folders {', '.join(folders.values())}"] if folders else []
    if left_out := len(files) - sum(map(len, members.values())):
        notes.append(f"left out: {left_out:,} images beside {', '.join(folders.values())}")

    class_names = _class_names(bases["train"], members["train"])
    index = {name: label for label, name in enumerate(class_names)}
    splits = {}
    for split, base in bases.items():
        present = [_class_folder(base, file) if class_names else None for file in members[split]]
        if class_names:
            _check_classes(root, base, bases["train"], members[split], present, index)
            notes += _notes_on_classes(root / base, class_names, set(present))
        splits[split] = members[split], np.array([index.get(name, -1) for name in present], np.int64)
    return Layout(splits, class_names, tuple(notes))


def read_labelled_layout(root, files, skipped, path):
    """Returns the `Layout` of readable image files by a labels file, see `read_labels`.

    Its splits are those of the file or, without, of the sub-folders. Training images without a label are for
    pretraining alone; other splits leave them out.

    Args:
        root: the folder.
        files: readable image files, relative to it.
        skipped: `[(file, problem), ...]` of those that cannot be read; their rows count for nothing.
        path: of the labels file.

    Raises:
        UserError: if the file does not fit the folder, see `read_labels`, names fewer than two classes, or leaves a
            split without images.
    """
    rows = read_labels(path, root, {*files, *(file for file, _ in skipped)})
    several = any(len(row.labels) > 1 for row in rows.values())
    labelled = [file for file in files if file in rows and (several or rows[file].labels)]
    labels, class_names, label_sets = encode_labels([rows[file].labels for file in labelled])
    if len(class_names) < 2:
        found = f"the class {class_names[0]} alone" if class_names else "no class"
        raise UserError(f"{path} names {found} of images that can be read; it needs two or more.")

    named = {row.split for row in rows.values()} - {""}
    folders = {} if named else split_folders(root, files)
    bases = folders or {"train": ""}
    below = {file: split for split, base in bases.items() for file in files if is_below(base, file)}
    split_of = {file: row.split for file, row in rows.items()} if named else below
    label_of = dict(zip(labelled, labels))
    members = {split: [file for file in labelled if split_of.get(file) == split] for split in named or bases}
    for split in ("train", *named):
        if not members.get(split):
            raise UserError(f"{path} has no row of the split {split} with a label and an image that can be read.")
    splits = {split: (found, np.array([label_of[file] for file in found])) for split, found in members.items() if found}
    unlabelled = [
        file for file in files if file not in label_of and split_of.get(file, "train" if named else "") == "train"
    ]
    if unlabelled:
        splits[UNLABELLED] = unlabelled, np.full(len(unlabelled), -1)
    return Layout(
        splits,
        class_names,
        tuple(_notes_on_rows(files, skipped, rows, splits, folders)),
        label_sets,
        str(path),
        "it has no label",
    )


def _notes_on_rows(files, skipped, rows, splits, folders):
    if folders:
        yield f"splits from the sub-folders {', '.join(folders.values())}"
    if unreadable := sum(file in rows for file, _ in skipped):
        yield f"{unreadable:,} rows are of files that cannot be read"
    if UNLABELLED in splits:
        yield f"{len(splits[UNLABELLED][0]):,} images without a label are for pretraining alone"
    if left_out := len(files) - sum(len(found) for found, _ in splits.values()):
        yield f"left out: {left_out:,} images without a label"


def split_folders(root, files):
    """Returns `{split: folder}`, empty where the sub-folders are no splits."""
    found = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if split := SPLITS.get(folder.name.lower()):
            found.setdefault(split, []).append(folder.name)
    filled = {_class_folder("", file) for file in files}
    others = filled.difference(*found.values())  # with None for images beside
    if "train" not in found:
        if filled - {None} and not others - {None}:
            names = ", ".join(sorted(filled - {None}))
            raise UserError(
                f"{root} has images in {names}, but no train folder: rename what to train on to train, or name it "
                f"alone, as in folder:{root / min(filled - {None})}."
            )
        return {}
    if len(found) < 2 and others:
        return {}
    for split, names in found.items():
        if len(names) > 1:
            raise UserError(f"{root} has several folders for {split}: {', '.join(names)}; keep one.")
    return {split: found[split][0] for split in ("train", "validation", "test") if split in found}


def is_below(base, file):
    """Whether a file lies in a folder, `base`; an empty one is that of all files."""
    return not base or file.startswith(base + os.sep)


def _class_folder(base, file):
    """Returns the sub-folder of the first level below `base`, a folder or "", that a file lies in, or None."""
    below = file[len(base) + 1 :] if base else file
    folder, separator, _ = below.partition(os.sep)
    return folder if separator else None


def _class_names(base, files):
    names = {_class_folder(base, file) for file in files}
    return () if None in names or len(names) < 2 else tuple(sorted(names))


def _check_classes(root, base, train, files, present, known):
    for file, name in zip(files, present):
        if name is None:
            raise UserError(
                f"{root / file} lies in no class folder of {root / base}, where {root / train} has classes."
            )
        if name not in known:
            raise UserError(f"{root / base} has images of the class {name}, and {root / train} has none.")


def _notes_on_classes(base, class_names, present):
    folders = {path.name for path in base.iterdir() if path.is_dir() and not is_hidden(path.name)}
    if empty := sorted(folders - set(class_names)):
        yield f"{len(empty):,} folders without images are no classes of {base.name}: {', '.join(empty[:5])}"
    if missing := [name for name in class_names if name not in present]:
        yield f"{len(missing):,} classes have no images in {base.name}: {', '.join(missing[:5])}"
