"""JPEG files of a given size, made for benchmarks."""

import io
import pathlib

import numpy as np
from PIL import Image

FILE_TOLERANCE, QUALITY = 0.01, 95
LARGEST_NOISE = 64.0  # standard deviation, of values in [0, 255]
SMALLEST_SHARE = 0.7  # of a photograph's height that a part takes


def write_photographs(
    folder: str | pathlib.Path, count: int, seed: int, size: tuple[int, int] = (375, 500), file_bytes: float = 110e3
) -> list[pathlib.Path]:
    """Writes JPEG files, by default as large as ImageNet's: parts of scikit-learn's two photographs with noise.

    Args:
        folder: where the files go, `0000.jpg` and so on.
        count: number of files.
        seed: integer; the files are a function of it.
        size: `(height, width)` in pixels.
        file_bytes: of each file; there is as much noise as fits.

    Returns:
        The paths.
    """
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    paths = []
    for i in range(count):
        generator = np.random.default_rng((seed, i))
        path = pathlib.Path(folder, f"{i:04}.jpg")
        pixels = _part(photographs[i % len(photographs)], size, generator)
        path.write_bytes(_file_of_right_size(pixels, file_bytes, generator))
        paths.append(path)
    return paths


def _part(photograph: Image.Image, size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Returns a random part of the right shape, `(*size, 3)` float64."""
    height = generator.uniform(SMALLEST_SHARE, 1.0) * photograph.height
    width = height * size[1] / size[0]
    left, top = (generator.uniform(0, whole - part) for whole, part in zip(photograph.size, (width, height)))
    box = (left, top, left + width, top + height)
    return np.asarray(photograph.resize(size[::-1], Image.Resampling.BICUBIC, box), np.float64)


def _file_of_right_size(pixels: np.ndarray, file_bytes: float, generator: np.random.Generator) -> bytes:
    """Finds the strength of noise by halving the interval that it lies in: more noise makes a larger file."""
    noise = generator.normal(size=pixels.shape)
    low, high = 0.0, LARGEST_NOISE
    while True:
        middle = (low + high) / 2
        file = io.BytesIO()
        noisy = np.clip(pixels + middle * noise, 0, 255).round().astype(np.uint8)
        Image.fromarray(noisy).save(file, "jpeg", quality=QUALITY)
        if abs(file.tell() - file_bytes) <= FILE_TOLERANCE * file_bytes or high - low < 1e-3:
            return file.getvalue()
        low, high = (middle, high) if file.tell() < file_bytes else (low, middle)
