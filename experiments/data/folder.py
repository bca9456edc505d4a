"""A folder of images, labelled by sub-folder or unlabelled."""

import collections
import concurrent.futures
import os
import pathlib

import numpy as np
from PIL import Image

from experiments.data.folder_layout import read_layout
from experiments.data.held_out import check_shares, held_out
from experiments.data.source import MemorySplit, Source
from experiments.errors import UserError

# What TensorFlow decodes, as Pillow calls it.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF")  # MPO: a JPEG with more pictures behind it, as many phones write
BMP_MODES = ("L", "RGB", "RGBA")  # TensorFlow takes the numbers of a palette's colours for grey values
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic", ".avif")
# The last bytes of a complete file.
END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
NAMED_IN_NOTES = 5


def open_folder(path, config):
    """Reads which images a folder holds, at any depth.

    Splits and classes follow from the sub-folders, see `folder_layout`. What is missing is held out from the training
    images, at random: `validation_share` of them, and of a labelled folder `test_share`.

    Files that are not images, broken or of a format that cannot be decoded are skipped, counted in the notes and listed
    in `skipped`, as are images that lie beside the splits. What a file is, its content says, not its suffix.

    Args:
        path: of the folder.
        config: a `DataConfig`.

    Raises:
        UserError: if the folder does not exist, holds no image, or its splits and classes do not fit together, or the
            shares leave none to train on.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"There is no folder {root}.")
    files = _image_files(root)
    with concurrent.futures.ThreadPoolExecutor() as executor:
        problems = list(executor.map(_problem, files))
    good = [file for file, problem in zip(files, problems) if not problem]
    skipped = [(file, problem) for file, problem in zip(files, problems) if problem]
    if not good:
        found = f"none of its {len(files)} image files can be read" if files else "it holds no image file"
        raise UserError(f"{root}: {found} ({', '.join(SUFFIXES[:6])}).")

    layout = read_layout(root, good)
    splits = {name: _split(*examples) for name, examples in layout.splits.items()}
    shares = {"validation": config.validation_share, "test": config.test_share if layout.class_names else 0.0}
    missing = {name: share for name, share in shares.items() if name not in splits}
    train = splits["train"]
    too_small = check_shares(train.num_examples, missing, f"folder:{root}")
    parts = held_out(train.num_examples, tuple(missing.values()))
    splits |= {name: train.take(part) for name, part in zip(("train", *missing), parts)}
    notes = (*_notes(root, good, layout, skipped), *too_small)
    return Source(f"folder:{root}", splits, layout.class_names, notes, _left_out(root, good, layout, skipped))


def _split(files, labels):
    return MemorySplit(np.array([os.fsencode(file) for file in files], dtype=object), labels, are_paths=True)


def _image_files(root):
    found = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith(".") and not _leads_back(folder, name)
        )
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                found.append(pathlib.Path(folder, name))
    return found


def _leads_back(folder, name):
    """Whether a sub-folder is a link to the folder that it lies in, or to one above."""
    inside, target = os.path.realpath(folder), os.path.realpath(os.path.join(folder, name))
    return os.path.commonpath((inside, target)) == target


def _problem(path):
    """Returns why a file cannot be used, or an empty string.

    Only a file without its format's end marker is decoded here; damage inside a file shows when it is read in
    training, where it counts as unreadable.
    """
    try:
        with Image.open(path) as image:
            if image.format not in FORMATS:
                return f"{image.format} is a format that cannot be decoded here"
            if image.format == "BMP" and image.mode not in BMP_MODES:
                return "BMP with a palette cannot be decoded here"
            if not _is_complete(path, image.format):
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if not os.access(path, os.R_OK):
            return "the file cannot be opened"
        truncated = isinstance(error, OSError) and "truncated" in str(error)
        return "the file is cut short" if truncated else "not an image" if path.stat().st_size else "the file is empty"
    return ""


def _left_out(root, good, layout, skipped):
    used = {file for files, _ in layout.splits.values() for file in files}
    beside = [(file, "it lies beside the folders of the splits") for file in good if file not in used]
    return tuple((file.relative_to(root).as_posix(), problem) for file, problem in sorted([*skipped, *beside]))


def _is_complete(path, image_format):
    marker = END_MARKERS.get(image_format)
    if marker is None:
        return False
    with open(path, "rb") as file:
        file.seek(-min(len(marker), path.stat().st_size), os.SEEK_END)
        return file.read() == marker


def _notes(root, good, layout, skipped):
    labelling = f"{len(layout.class_names)} classes from sub-folders" if layout.class_names else "no labels"
    notes = [f"{len(good):,} images, {labelling}", *layout.notes]
    if skipped:
        reasons = collections.Counter(problem for _, problem in skipped)
        counts = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        notes.append(f"skipped {len(skipped):,} files: {counts}")
        notes += [f"  {file.relative_to(root)}: {problem}" for file, problem in skipped[:NAMED_IN_NOTES]]
        if len(skipped) > NAMED_IN_NOTES:
            notes.append(f"  and {len(skipped) - NAMED_IN_NOTES:,} more")
    return tuple(notes)
