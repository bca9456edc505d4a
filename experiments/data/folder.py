"""A folder of images, labelled by sub-folder or unlabelled."""

import collections
import concurrent.futures
import functools
import os
import pathlib

import numpy as np

from experiments.data.folder_layout import is_hidden, read_layout
from experiments.data.held_out import check_shares, held_out
from experiments.data.reading import SUFFIXES, is_image_name, problem_of
from experiments.data.source import MemorySplit, Source
from experiments.errors import UserError
from experiments.io import local_path

NAMED_IN_NOTES = 5


def open_folder(path, config):
    """Reads which images a folder holds, at any depth.

    Splits and classes follow from the sub-folders, see `folder_layout`. What is missing is held out from the training
    images, at random: `validation_share` of them, and of a labelled folder `test_share`. Classes of which this leaves
    no image to train on are noted.

    Files that are called like images, and are none, broken or of a kind that cannot be decoded (see `reading`) are
    skipped, counted in the notes and listed in `skipped`, as are images that lie beside the splits. Hidden files and
    folders, and folders that systems keep, are not looked at.

    Args:
        path: of the folder.
        config: a `DataConfig`.

    Raises:
        UserError: if the folder does not exist, holds no image, or its splits and classes do not fit together, or the
            shares leave none to train on.
    """
    root = local_path(path)
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.")
    files, system_folders = _image_files(root)
    with concurrent.futures.ThreadPoolExecutor() as executor:
        problems = list(executor.map(functools.partial(problem_of, max_pixels=config.max_pixels), files))
    good = [file for file, problem in zip(files, problems) if not problem]
    skipped = [(file, problem) for file, problem in zip(files, problems) if problem]
    if not good:
        found = f"none of its {len(files)} image files can be read" if files else "it holds no image file"
        raise UserError(f"{root}: {found} ({', '.join(SUFFIXES)}).")

    layout = read_layout(root, good)
    splits = {name: _split(*examples) for name, examples in layout.splits.items()}
    shares = {"validation": config.validation_share, "test": config.test_share if layout.class_names else 0.0}
    missing = {name: share for name, share in shares.items() if name not in splits}
    train = splits["train"]
    too_small = check_shares(train.num_examples, missing, f"folder:{root}")
    parts = held_out(train.num_examples, tuple(missing.values()))
    splits |= {name: train.take(part) for name, part in zip(("train", *missing), parts)}
    notes = (
        *_notes(root, good, layout, skipped, system_folders),
        *too_small,
        *_notes_on_training(splits["train"], layout.class_names),
    )
    left_out = [tuple(map(_printable, pair)) for pair in _left_out(root, good, layout, skipped)]
    return Source(
        _printable(f"folder:{root}"),
        splits,
        tuple(map(_printable, layout.class_names)),
        tuple(map(_printable, notes)),
        tuple(left_out),
    )


def _printable(text):
    """Shows the bytes of names that are not UTF-8 as `\\xe9`: nothing could print or write them as they are."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _split(files, labels):
    return MemorySplit(np.array([os.fsencode(file) for file in files], dtype=object), labels, are_paths=True)


def _image_files(root):
    """Returns the files that are called like images, and the names of folders that a system keeps, not looked into."""
    found, system_folders = [], []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        system_folders += [name for name in subfolders if is_hidden(name) and not name.startswith(".")]
        subfolders[:] = sorted(
            name for name in subfolders if not is_hidden(name) and not _leads_back(root, folder, name)
        )
        found += [pathlib.Path(folder, name) for name in sorted(names) if is_image_name(name)]
    return found, system_folders


def _leads_back(root, folder, name):
    """Whether a sub-folder is a link to one of the folders on the way to it from the root, or to one above them."""
    path = pathlib.Path(folder, name)
    if not path.is_symlink():
        return False
    target = path.resolve()
    way = [passed.resolve() for passed in path.parents if passed == root or root in passed.parents]
    return any(target == passed or target in passed.parents for passed in way)


def _left_out(root, good, layout, skipped):
    used = {file for files, _ in layout.splits.values() for file in files}
    beside = [(file, "it lies beside the folders of the splits") for file in good if file not in used]
    return tuple((file.relative_to(root).as_posix(), problem) for file, problem in sorted([*skipped, *beside]))


def _notes(root, good, layout, skipped, system_folders):
    labelling = f"{len(layout.class_names)} classes from sub-folders" if layout.class_names else "no labels"
    notes = [f"{len(good):,} images, {labelling}", *layout.notes]
    if system_folders:
        kinds = ", ".join(sorted(set(system_folders)))
        notes.append(f"not looked into: {len(system_folders):,} folders that systems keep ({kinds})")
    if skipped:
        reasons = collections.Counter(problem for _, problem in skipped)
        counts = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        notes.append(f"skipped {len(skipped):,} files: {counts}")
        notes += [f"  {file.relative_to(root)}: {problem}" for file, problem in skipped[:NAMED_IN_NOTES]]
        if len(skipped) > NAMED_IN_NOTES:
            notes.append(f"  and {len(skipped) - NAMED_IN_NOTES:,} more")
    return tuple(notes)


def _notes_on_training(train, class_names):
    seen = set(train.labels.tolist())
    if unseen := [name for label, name in enumerate(class_names) if label not in seen]:
        yield (
            f"{len(unseen):,} classes have no images left to train on, all of theirs are held out: "
            f"{', '.join(unseen[:NAMED_IN_NOTES])}"
        )
