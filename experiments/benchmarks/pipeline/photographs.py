"""JPEG files as large as ImageNet's: parts of the two photographs that scikit-learn ships, with noise."""

import io
import pathlib

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

WIDTH, HEIGHT = 500, 375
QUALITY = 95
FILE_BYTES = 110_000
TOLERANCE = 0.01  # of the size of a file
LARGEST_NOISE = 64.0  # standard deviation, of values in [0, 255]
SMALLEST_SHARE = 0.7  # of a photograph's height that a part takes


def write_photographs(folder, count, seed):
    """Writes files, each another part of a photograph with other noise, as strong as makes its size right.

    Args:
        folder: where the files go, `0000.jpg` and so on.
        count: number of files.
        seed: integer; the files are a function of it.

    Returns:
        The paths.
    """
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    paths = []
    for i in range(count):
        generator = np.random.default_rng((seed, i))
        path = pathlib.Path(folder, f"{i:04}.jpg")
        path.write_bytes(_file_of_right_size(_part(photographs[i % len(photographs)], generator), generator))
        paths.append(path)
    return paths


def _part(photograph, generator):
    """Returns a random part of the right shape, `(HEIGHT, WIDTH, 3)` float64."""
    height = generator.uniform(SMALLEST_SHARE, 1.0) * photograph.height
    width = height * WIDTH / HEIGHT
    left, top = (generator.uniform(0, whole - part) for whole, part in zip(photograph.size, (width, height)))
    box = (left, top, left + width, top + height)
    return np.asarray(photograph.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box), np.float64)


def _file_of_right_size(pixels, generator):
    """Finds the strength of noise by halving the interval that it lies in: more noise makes a larger file."""
    noise = generator.normal(size=pixels.shape)
    low, high = 0.0, LARGEST_NOISE
    while True:
        middle = (low + high) / 2
        content = _encode(pixels + middle * noise)
        if abs(len(content) - FILE_BYTES) <= TOLERANCE * FILE_BYTES:
            return content
        low, high = (middle, high) if len(content) < FILE_BYTES else (low, middle)


def _encode(pixels):
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8)).save(file, "jpeg", quality=QUALITY)
    return file.getvalue()
