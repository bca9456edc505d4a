"""The meaning of the sub-folders of a folder of images: splits and classes.

Splits: a folder with a sub-folder `train` (or `training`) and one or both of `val` (or `valid`, `validation`) and
`test`, in upper or lower case, has these splits; images beside them are left out and counted. Each split must hold an
image. A single `train` that holds all images is also the training split. If all sub-folders with images are named like
splits but none is `train`, it is unclear what to train on: an error.

Classes: the folder, or with splits its `train`, is labelled if every image lies in one of two or more sub-folders;
sub-folders of the first level are the classes. Images of other splits must lie in folders of the same names. A class
folder without a readable image is left out, and a class may have no images in another split; both are noted. A labels
file replaces the class folders and, where it names splits, the folders of the splits.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.data.sources.labels_file import SPLITS, encode_labels, read_labels
from experiments.data.sources.text import quoted
from experiments.data.splits import UNLABELLED
from experiments.errors import UserError

# Thumbnails, trash, snapshots and copies of NAS devices, Windows, macOS, Linux and version control, in lower case.
SYSTEM_FOLDERS = re.compile(
    r"@eadir|@recycle|@recently-snapshot|@sharebin|@transcode|@tmp|#recycle|#snapshot|~snapshot|\$recycle\.bin|recycled|"
    r"recycler|found\.\d{3}|system volume information|lost\+found|network trash folder|temporary items|__macosx|"
    r"__pycache__|cvs"
)


def is_hidden(folder: str) -> bool:
    """Whether a folder is skipped by its name: hidden, or created by an operating system or NAS."""
    return folder.startswith(".") or SYSTEM_FOLDERS.fullmatch(folder.lower()) is not None


@dataclasses.dataclass(frozen=True)
class Layout:
    """The splits and classes of a folder.

    Args:
        splits: `{split: (files, labels)}`, of files relative to the folder and `labels` `(N,)` int64; `train` alone in
            a folder without splits.
        class_names: names of the classes; empty without labels.
        notes: lines for the user.
        label_sets: see `Source`.
        labels_from: description of the origin of the labels.
        why_left_out: why some images belong to no split.
    """

    splits: dict
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    label_sets: np.ndarray | None = None
    labels_from: str = "sub-folders"
    why_left_out: str = "it lies beside the folders of the splits"


def read_layout(root: pathlib.Path, files: Sequence[str]) -> Layout:
    """Returns the `Layout` of readable image files below a folder, which are texts relative to it.

    Raises:
        UserError: if the splits cannot be told apart, lack images, or differ in their classes.
    """
    folders = split_folders(root, files)
    bases = folders or {"train": ""}
    members = {split: [file for file in files if is_below(base, file)] for split, base in bases.items()}
    for split, base in bases.items():
        if not members[split]:
            raise UserError(f"{root / base} holds no readable image; add images or remove it.")
    notes = [f"splits from the sub-folders {', '.join(folders.values())}"] if folders else []
    if left_out := len(files) - sum(map(len, members.values())):
        notes.append(f"left out: {left_out:,} images beside {', '.join(folders.values())}")

    first = next(iter(bases))  # that to train on, unless all images are there to evaluate on
    class_names = _class_names(bases[first], members[first])
    index: dict[str | None, int] = {name: label for label, name in enumerate(class_names)}
    splits = {}
    for split, base in bases.items():
        present = [_class_folder(base, file) if class_names else None for file in members[split]]
        if class_names:
            _check_classes(root, base, bases[first], members[split], present, index)
            notes += _notes_on_classes(root / base, class_names, set(present))
        splits[split] = members[split], np.array([index.get(name, -1) for name in present], np.int64)
    return Layout(splits, class_names, tuple(notes))


def read_labelled_layout(
    root: pathlib.Path, files: Sequence[str], skipped: Sequence[tuple[str, str]], path: str | os.PathLike[str]
) -> Layout:
    """Returns the `Layout` of readable image files from a labels file, see `read_labels`.

    Its splits are those of the file or, if it has none, of the sub-folders. Training images without a label are used
    only for pretraining; other splits leave such images out.

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
        found = f"only the class {quoted(class_names[0])}" if class_names else "no class"
        raise UserError(f"The readable images in {path} have {found}; two or more classes are needed.")

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


def _notes_on_rows(
    files: Sequence[str],
    skipped: Iterable[tuple[str, str]],
    rows: Container[str],
    splits: Mapping[str, tuple[list[str], np.ndarray]],
    folders: Mapping[str, str],
) -> Iterator[str]:
    if folders:
        yield f"splits from the sub-folders {', '.join(folders.values())}"
    if unreadable := sum(file in rows for file, _ in skipped):
        yield f"{unreadable:,} rows are of files that cannot be read"
    if UNLABELLED in splits:
        yield f"{len(splits[UNLABELLED][0]):,} images without a label are for pretraining alone"
    if left_out := len(files) - sum(len(found) for found, _ in splits.values()):
        yield f"left out: {left_out:,} images without a label"


def split_folders(root: pathlib.Path, files: Iterable[str]) -> dict[str, str]:
    """Returns `{split: folder}`, empty if the sub-folders are not splits; there may be none to train on."""
    found: dict[str, list[str]] = {}
    for folder in sorted(path for path in root.iterdir() if os.path.isdir(path)):
        if split := SPLITS.get(folder.name.lower()):
            found.setdefault(split, []).append(folder.name)
    filled: set[Any] = {_class_folder("", file) for file in files}
    others = filled.difference(*found.values())  # with None for images beside
    if "train" not in found and filled - {None} and others == {None}:
        shown = ", ".join(sorted(filled - {None}))
        raise UserError(
            f"{root} has images in {shown} and outside, but no train folder: move training images to {root / 'train'}, "
            f"or name one folder, as in folder:{root / min(filled - {None})}."
        )
    if others and (len(found) < 2 or "train" not in found):
        return {}
    for split, names in found.items():
        if len(names) > 1:
            raise UserError(f"{root} has several folders for {split}: {', '.join(names)}; keep one.")
    return {split: found[split][0] for split in ("train", "validation", "test") if split in found}


def is_below(base: str, file: str) -> bool:
    """Whether a file lies in a folder, `base`; an empty one is that of all files."""
    return not base or file.startswith(base + os.sep)


def _class_folder(base: str, file: str) -> str | None:
    """Returns the sub-folder of the first level below `base`, a folder or "", that a file lies in, or None."""
    below = file[len(base) + 1 :] if base else file
    folder, separator, _ = below.partition(os.sep)
    return folder if separator else None


def _class_names(base: str, files: Iterable[str]) -> tuple[str, ...]:
    names: set[Any] = {_class_folder(base, file) for file in files}
    return () if None in names or len(names) < 2 else tuple(sorted(names))


def _check_classes(
    root: pathlib.Path,
    base: str,
    train: str,
    files: Iterable[str],
    present: Iterable[str | None],
    known: Container[str | None],
) -> None:
    for file, name in zip(files, present):
        if name is None:
            raise UserError(
                f"{root / file} is not in a class folder of {root / base}, although {root / train} has classes."
            )
        if name not in known:
            raise UserError(f"{root / base} has images of the class {name}, and {root / train} has none.")


def _notes_on_classes(base: pathlib.Path, class_names: Sequence[str], present: Container[str | None]) -> Iterator[str]:
    folders = {path.name for path in base.iterdir() if os.path.isdir(path) and not is_hidden(path.name)}
    if empty := sorted(folders - set(class_names)):
        yield f"{len(empty):,} folders without images are not classes of {base.name}: {', '.join(empty[:5])}"
    if missing := [name for name in class_names if name not in present]:
        yield f"{len(missing):,} classes have no images in {base.name}: {', '.join(missing[:5])}"
