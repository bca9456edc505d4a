"""A folder of images, labelled by sub-folder or unlabelled."""

import collections
import concurrent.futures
import os
import pathlib

import numpy as np
from PIL import Image

from experiments.data.source import MemorySplit, Source, held_out
from experiments.errors import UserError

# What TensorFlow decodes, as Pillow calls it.
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF")  # MPO: a JPEG with more pictures behind it, as many phones write
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic", ".avif")
# The last bytes of a complete file.
END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
NAMED_IN_NOTES = 5


def open_folder(path, config):
    """Reads which images a folder holds, at any depth.

    The folder is labelled if every image lies in one of two or more sub-folders; the sub-folders of the first
    level are the classes. A labelled folder gives up `validation_share` and `test_share` of its images, drawn
    at random; an unlabelled one trains on all but `validation_share`.

    Files that are not images, broken or of a format that cannot be decoded are skipped and listed in the notes.

    Args:
        path: of the folder.
        config: a `DataConfig`.

    Raises:
        UserError: if the folder does not exist or holds no image.
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

    class_names, labels = _labels(root, good)
    everything = MemorySplit(np.array([os.fsencode(file) for file in good], dtype=object), labels, are_paths=True)
    test_share = config.test_share if class_names else 0.0
    parts = held_out(len(good), (config.validation_share, test_share))
    splits = {name: everything.take(part) for name, part in zip(("train", "validation", "test"), parts)}
    return Source(f"folder:{root}", splits, class_names, _notes(root, good, class_names, skipped))


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
            if not _is_complete(path, image.format):
                image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if not os.access(path, os.R_OK):
            return "the file cannot be opened"
        truncated = isinstance(error, OSError) and "truncated" in str(error)
        return "the file is cut short" if truncated else "not an image" if path.stat().st_size else "the file is empty"
    return ""


def _is_complete(path, image_format):
    marker = END_MARKERS.get(image_format)
    if marker is None:
        return False
    with open(path, "rb") as file:
        file.seek(-min(len(marker), path.stat().st_size), os.SEEK_END)
        return file.read() == marker


def _labels(root, files):
    first_level = [file.relative_to(root).parts[:-1][:1] for file in files]
    names = sorted({parts[0] for parts in first_level if parts})
    if len(names) < 2 or not all(first_level):
        return (), np.full(len(files), -1, np.int64)
    index = {name: i for i, name in enumerate(names)}
    return tuple(names), np.array([index[parts[0]] for parts in first_level], np.int64)


def _notes(root, good, class_names, skipped):
    labelling = f"{len(class_names)} classes from sub-folders" if class_names else "no labels"
    notes = [f"{len(good):,} images, {labelling}"]
    if skipped:
        reasons = collections.Counter(problem for _, problem in skipped)
        counts = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        notes.append(f"skipped {len(skipped):,} files: {counts}")
        notes += [f"  {file.relative_to(root)}: {problem}" for file, problem in skipped[:NAMED_IN_NOTES]]
        if len(skipped) > NAMED_IN_NOTES:
            notes.append(f"  and {len(skipped) - NAMED_IN_NOTES:,} more")
    return tuple(notes)
