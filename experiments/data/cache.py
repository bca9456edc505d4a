"""Images in memory: the bytes of their files, or decoded.

`data.cache` says what stays in memory once a split has been read:

- `auto`, the default: small images as arrays, up to 64 pixels a side and 2 GiB per split; nothing for larger ones.
  Whole batches of arrays are cropped and augmented at once, which for small images is many times as fast.
- `decoded`: images of any size as arrays, each taking as much as the highest and the widest of its split.
- `encoded`: the bytes of the files, so that only the first reading waits for the disk.
- `none`.

Order, augmentation and, up to rounding, pixels are the same with each value, except that `decoded` decodes large JPEG
files in full, see `decode_and_crop`. `decoded` and `encoded` may take half of the available memory; a run that needs
more does not start. With several workers, each holds all images.
"""

import concurrent.futures
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from experiments.data.files import read_bytes
from experiments.errors import UserError
from experiments.provenance import available_memory

if TYPE_CHECKING:
    from experiments.data.preprocessing import Preprocessing
    from experiments.data.source import Source, Split

SHARE = 0.5  # of the available memory
GIBIBYTE = 2**30
CHUNK = 1024  # examples of a stream that are read at once
SMALL = 64  # side in pixels up to which images are decoded by default
MOST = 2 * GIBIBYTE  # largest size of a split of small images that is held by default
DECODED_AT_ONCE = 16  # and no more of those that are too large


def with_cache(source: "Source", cache: str) -> "Source":
    """Returns a `Source` whose splits stay in memory once they have been read, as `data.cache` says.

    Raises:
        UserError: if the encoded images are larger than the rule on memory allows.
    """
    notes = source.notes
    if cache == "encoded":
        sizes = {name: split.num_bytes for name, split in source.splits.items() if name != "unlabelled"}
        # A run trains on `train` or on `pretrain`, and `unlabelled` is a part of `pretrain`.
        size = sum(sizes.values()) - min(sizes.get("train", 0), sizes.get("pretrain", 0))
        available = available_memory()
        if size > SHARE * available:
            raise UserError(
                f"data.cache=encoded: the images of {source.name} take {size / GIBIBYTE:.1f} GiB, more than half of "
                f"the {available / GIBIBYTE:.1f} GiB of memory that are available: use data.cache=none."
            )
        notes = (*notes, f"kept in memory after the first read: {size / GIBIBYTE:.2g} GiB")
    splits = {name: split.cached(cache) for name, split in source.splits.items()}
    return dataclasses.replace(source, splits=splits, notes=notes)


@dataclasses.dataclass(frozen=True)
class DecodedImages:
    """All images of a split, in their own order.

    Args:
        images: `(N, H, W, channels)` in [0, 255], each in the upper left corner; uint8, or float32 where values are not
            whole numbers.
        sizes: `(N, 2)` int32, height and width of each, at least 1; None if all readable images are `(H, W)`.
        labels: `(N,)` int64.
        readable: `(N,)` bool.
    """

    images: tf.Tensor
    sizes: tf.Tensor | None
    labels: tf.Tensor
    readable: tf.Tensor

    def take(self, numbers: tf.Tensor) -> "DecodedImages":
        """Returns the images of some numbers, `(B,)`."""
        fields = (getattr(self, field.name) for field in dataclasses.fields(self))
        return DecodedImages(*(None if values is None else tf.gather(values, numbers) for values in fields))


def decoded_images(split: "Split", preprocessing: "Preprocessing") -> DecodedImages | None:
    """Returns the `DecodedImages` of a split, or None if `data.cache` or their size rules that out.

    The first call decodes them.

    Args:
        split: the examples.
        preprocessing: a `Preprocessing`, which decodes them.

    Raises:
        UserError: if they are larger than the rule on memory allows.
    """
    if split.cache not in ("auto", "decoded"):
        return None
    known = vars(split).setdefault("_decoded", {})  # of this split, as long as it is there
    key = preprocessing.reading
    if key not in known:
        with tf.init_scope(), tf.device("CPU"):  # outside of any graph, which would take in a copy
            known[key] = _decode(split, preprocessing)
    return known[key]


def _decode(split: "Split", preprocessing: "Preprocessing") -> DecodedImages | None:
    available = available_memory()
    total = sum(part.num_examples for part in getattr(split, "parts", (split,)))  # an epoch of a mix may have fewer
    if (arrays := _decode_all(split, preprocessing, total, available)) is None:
        return None
    images, sizes, labels, readable = arrays
    sizes = None if (sizes[readable] == images.shape[1:3]).all() else tf.constant(sizes)
    return DecodedImages(tf.constant(images), sizes, tf.constant(labels), tf.constant(readable))


@tf.autograph.experimental.do_not_convert
def _decode_all(
    split: "Split", preprocessing: "Preprocessing", total: int, available: int
) -> tuple[np.ndarray, ...] | None:
    """Decodes `total` images to the arrays of `DecodedImages`; returns None as soon as they prove too large."""

    def load(position: tf.Tensor, example: tuple[Any, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        content, label = example
        image = preprocessing.decode(split.read(content))
        return position, label, tf.shape(image)[:2], image

    examples = split.in_order().take(total).enumerate()
    loaded = examples.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).ignore_errors()
    images = np.zeros((total, 1, 1, preprocessing.channels), np.uint8)
    sizes, labels, readable = np.ones((total, 2), np.int32), np.zeros(total, np.int64), np.zeros(total, bool)
    with tqdm(total=total, desc="Decoding images", delay=1.0, leave=False, disable=None) as bar:
        for places, *values in loaded.padded_batch(DECODED_AT_ONCE).as_numpy_iterator():
            labels[places], sizes[places], pixels = values
            readable[places] = True
            sides = np.maximum(images.shape[1:3], pixels.shape[1:3])
            if images.dtype == np.uint8 and (pixels != pixels.round()).any():  # more than 8 bits, or NaN
                images = images.astype(np.float32)
            if not _fits(split, (total, *sides, images.shape[-1]), images.itemsize, available):
                return None
            grown = [(0, 0), *((0, new - old) for new, old in zip(sides, images.shape[1:3])), (0, 0)]
            images = np.pad(images, grown) if np.any(grown) else images
            images[places, : pixels.shape[1], : pixels.shape[2]] = pixels
            bar.update(len(places))
    return images, sizes, labels, readable


def _fits(split: "Split", shape: Sequence[int], itemsize: int, available: int) -> bool:
    """Whether arrays of a shape are held in memory; with `decoded` an error if they are too large."""
    size = math.prod(map(int, shape)) * itemsize
    if split.cache == "auto":
        return max(shape[1:3]) <= SMALL and size <= MOST  # by the images alone: the same on all machines
    if size > SHARE * available:
        raise UserError(
            f"data.cache=decoded: {shape[0]:,} images of up to {shape[1]}x{shape[2]} pixels take "
            f"{size / GIBIBYTE:.1f} GiB, more than half of the {available / GIBIBYTE:.1f} GiB of memory that are "
            "available: use data.cache=encoded or none."
        )
    return True


def read_files(paths: Iterable[bytes]) -> np.ndarray:
    """Returns the contents of files or their parts, `(N,)` bytes; empty, so not decodable, if one cannot be read."""
    with concurrent.futures.ThreadPoolExecutor() as executor:
        return np.array(list(executor.map(read_bytes, paths)), dtype=object)


def read_examples(examples: tf.data.Dataset) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns a dataset of `(encoded image, label)` as two tensors, `(N,)` strings and `(N,)` int64."""
    contents, labels = zip(*examples.batch(CHUNK).as_numpy_iterator())  # one by one takes longer than reading them
    return tf.constant(np.concatenate(contents)), tf.constant(np.concatenate(labels), tf.int64)
