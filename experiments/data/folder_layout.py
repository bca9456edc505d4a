"""What the sub-folders of a folder of images mean: splits and classes.

Splits: where a folder has a sub-folder `train` (or `training`) and one or both of `val` (or `valid`, `validation`) and
`test`, in upper or lower case, these are the splits, and images beside them are left out and counted. Each of them has
to hold an image. A `train` in which all images lie is the training split as well. Where all sub-folders with images are
called like splits and none of them is `train`, what to train on is unclear: an error.

Classes: the folder, or with splits its `train`, is labelled if every image lies in one of two or more sub-folders;
those of the first level are the classes. Images of other splits have to lie in folders of the same names. A class
folder without a readable image is no class; a class may have no images in another split. Both are noted.

Hidden folders and those that systems keep for themselves (`SYSTEM_FOLDERS`) are neither, and not looked into.
"""

import dataclasses
import pathlib

import numpy as np

from experiments.errors import UserError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    "test": "test",
}
# Thumbnails, trash and copies of NAS devices, Windows, macOS and Linux, in lower case.
SYSTEM_FOLDERS = frozenset(
    ("@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler")
    + ("system volume information", "lost+found", "__macosx", "__pycache__")
)


def is_hidden(folder):
    """Whether a folder of this name holds no images of the user's: hidden, or one that a system keeps."""
    return folder.startswith(".") or folder.lower() in SYSTEM_FOLDERS


@dataclasses.dataclass(frozen=True)
class Layout:
    """What was found.

    Args:
        splits: `{split: (files, labels)}`, with `labels` `(N,)` int64; `train` alone in a folder without splits.
        class_names: names of the classes; empty without labels.
        notes: lines for the user.
    """

    splits: dict
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def read_layout(root, files):
    """Returns the `Layout` of readable image files below a folder.

    Raises:
        UserError: if the splits cannot be told apart, lack images, or differ in their classes.
    """
    folders = _split_folders(root, files)
    bases = {split: root / folder for split, folder in folders.items()} or {"train": root}
    members = {split: [file for file in files if base in file.parents] for split, base in bases.items()}
    for split, base in bases.items():
        if not members[split]:
            raise UserError(f"{base} holds no image that can be read; fill or remove it.")
    notes = [f"splits from the sub-folders {', '.join(folders.values())}"] if folders else []
    if left_out := len(files) - sum(map(len, members.values())):
        notes.append(f"left out: {left_out:,} images beside {', '.join(folders.values())}")

    class_names = _class_names(bases["train"], members["train"])
    splits = {}
    for split, base in bases.items():
        present = [_class_folder(base, file) if class_names else None for file in members[split]]
        _check_classes(base, bases["train"], members[split], present, class_names)
        index = {name: label for label, name in enumerate(class_names)}
        splits[split] = members[split], np.array([index.get(name, -1) for name in present], np.int64)
        if class_names:
            notes += _notes_on_classes(base, class_names, present)
    return Layout(splits, class_names, tuple(notes))


def _split_folders(root, files):
    """Returns `{split: folder}`, empty where the sub-folders are no splits."""
    found = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if split := SPLITS.get(folder.name.lower()):
            found.setdefault(split, []).append(folder.name)
    filled = {_class_folder(root, file) for file in files}
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


def _class_folder(base, file):
    """Returns the sub-folder of the first level that a file lies in, or None."""
    below = file.relative_to(base).parts[:-1]
    return below[0] if below else None


def _class_names(base, files):
    names = {_class_folder(base, file) for file in files}
    return () if None in names or len(names) < 2 else tuple(sorted(names))


def _check_classes(base, train, files, present, class_names):
    if not class_names:
        return
    for file, name in zip(files, present):
        if name is None:
            raise UserError(f"{file} lies in no class folder of {base}, where {train} has classes.")
        if name not in class_names:
            raise UserError(f"{base} has images of the class {name}, and {train} has none.")


def _notes_on_classes(base, class_names, present):
    folders = {path.name for path in pathlib.Path(base).iterdir() if path.is_dir() and not is_hidden(path.name)}
    if empty := sorted(folders - set(class_names)):
        yield f"{len(empty):,} folders without images are no classes of {base.name}: {', '.join(empty[:5])}"
    if missing := [name for name in class_names if name not in set(present)]:
        yield f"{len(missing):,} classes have no images in {base.name}: {', '.join(missing[:5])}"
