"""scikit-learn's handwritten digits: 1,797 scans of 8x8 pixels, in ten classes, shipped with the package."""

import functools
import io

import numpy as np
from PIL import Image
from sklearn import datasets

from experiments.data.source import MemorySplit, Source
from experiments.data.splits import held_out

SIDE = 32
MAX_INK = 16  # the scans count ink from 0 to 16
VALIDATION_SHARE, TEST_SHARE = 0.1, 0.3


@functools.cache
def open_digits() -> Source:
    """Returns the digits as a `Source`, each scan enlarged to 32x32 grey pixels; all runs of a process share them.

    The split is fixed: 1,078 images to train, 180 for validation, 539 to test.
    """
    digits = datasets.load_digits()
    contents = np.array([_encode(scan) for scan in digits.images], dtype=object)
    names = np.array([f"digits[{i}]" for i in range(len(contents))], dtype=object)
    everything = MemorySplit(contents, digits.target.astype(np.int64), names=names, cache="auto")
    parts = held_out(everything.num_examples, (VALIDATION_SHARE, TEST_SHARE))
    splits = {name: everything.take(part) for name, part in zip(("train", "validation", "test"), parts)}
    return Source("digits", splits, tuple(str(name) for name in digits.target_names))


def _encode(scan: np.ndarray) -> bytes:
    pixels = Image.fromarray((scan * (255 / MAX_INK)).round().astype(np.uint8))
    file = io.BytesIO()
    pixels.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "png")
    return file.getvalue()
