"""The pixels of images that a file of features names."""

import numpy as np
import tensorflow as tf

from experiments.data.augmentation import views
from experiments.data.reading import decode_and_crop
from experiments.data.sources import open_source
from experiments.extraction.extract import folder_of


def pictures_of(images, names):
    """Returns whole images, a list of `(H, W, 3)` uint8, None for one that cannot be read.

    Args:
        images: the `DataConfig` that the names came from.
        names: those of the images, as `launch.extract` gave them.
    """
    folder = folder_of(images)
    if folder is not None:
        return [read_picture(folder / name) for name in names]
    source = open_source(images)
    wanted = {}
    for name in names:
        split, position = name.split("/")
        wanted.setdefault(split, []).append(int(position))
    contents = {}
    for split, positions in wanted.items():
        part = source.split(split).take(np.array(positions))
        contents |= {f"{split}/{position}": content for position, content in zip(positions, part.contents)}
    return [_decode(contents[name]) for name in names]


def read_picture(path):
    """Returns the image in a file, as `pictures_of` does."""
    try:
        return _decode(tf.io.read_file(str(path)))
    except tf.errors.OpError:
        return None


def _decode(content):
    try:
        return decode_and_crop(tf.constant(content), views.whole_window, 3).numpy()
    except tf.errors.OpError:
        return None
