"""Compares an exported model with the Keras model, on photographs or on the images of a source."""

import contextlib
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from experiments.config import DataConfig
from experiments.data.augmentation import views
from experiments.data.pipeline import evaluation_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import Source
from experiments.data.values import Reading
from experiments.errors import UserError
from experiments.inference.formats import Serving

BATCH_SIZE = 32
SMALLEST_SHARE = 0.3  # of a photograph's height that a window takes
SPLITS = ("test", "validation", "train")  # the first of them that has images


def sample_photographs(count: int, size: tuple[int, int], channels: int) -> np.ndarray:
    """Returns random windows of the two photographs that scikit-learn ships.

    Args:
        count: number of images.
        size: `(height, width)`.
        channels: number of channels; beyond three, the colours again, shifted.

    Returns:
        `(count, H, W, channels)` uint8.
    """
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    generator = np.random.default_rng(0)
    windows = []
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        sides = np.array(photograph.size) * generator.uniform(SMALLEST_SHARE, 1.0)
        corner = generator.uniform(0.0, photograph.size - sides)
        window = photograph.resize(size[::-1], Image.Resampling.BICUBIC, (*corner, *(corner + sides)))
        pixels = np.asarray(window.convert("L" if channels == 1 else "RGB")).reshape(*size, -1)
        windows.append(np.stack([np.roll(pixels[..., c % 3], c // 3, axis=0) for c in range(channels)], axis=-1))
    return np.stack(windows)


def images_of(source: Source, count: int, size: tuple[int, int], reading: Reading) -> np.ndarray:
    """Returns the first images of a source, as evaluation sees them: `(count or fewer, H, W, channels)` uint8.

    Raises:
        UserError: if no image of the source can be read.
    """
    channels = reading.channels
    whole_values = Preprocessing(size, channels, (0.0,) * channels, (1.0 / 255.0,) * channels, reading=reading)
    split = source.split(next((name for name in SPLITS if source.get(name)), "train"))
    found = []
    for batch in evaluation_batches(split, whole_values, min(BATCH_SIZE, count)):
        found += list(batch["images"].numpy()[batch["weights"].numpy() > 0])
        if len(found) >= count:
            break
    if not found:
        raise UserError(f"{source.name} has no image that can be read.")
    return np.clip(np.stack(found[:count]).round(), 0, 255).astype(np.uint8)


def largest_difference(
    run: Callable[[np.ndarray], np.ndarray], serving: Serving, images: np.ndarray, data: DataConfig
) -> float:
    """Returns the largest absolute difference between an exported model and the Keras model; NaN if either has NaN.

    The first image is a batch of its own, so that batches have different sizes.

    Args:
        run: the exported model, a function of images.
        serving: the `Serving` that was exported.
        images: `(N, H, W, channels)` uint8.
        data: a `DataConfig`, with the mean and std that normalize the images for the Keras model.
    """
    with _whole_float32():
        return float(np.max(list(_differences(run, serving, images, data))))  # Python's max may lose a NaN


def _differences(
    run: Callable[[np.ndarray], np.ndarray], serving: Serving, images: np.ndarray, data: DataConfig
) -> Iterator[float]:
    mean, std = cast(tuple[float, ...], data.mean), cast(tuple[float, ...], data.std)
    for batch in np.split(images, range(1, len(images), BATCH_SIZE)):
        normalized = views.normalize(batch, mean, std).numpy()
        low, high = serving.value_range
        values = batch if (low, high) == (0.0, 255.0) else low + batch * ((high - low) / 255.0)
        given = values.astype(serving.input_dtype) if serving.normalization else normalized
        expected = np.asarray(serving.apply(normalized))
        values = run(given)
        if values.shape != expected.shape:
            raise ValueError(f"The exported model returns {values.shape} in place of {expected.shape}.")
        yield np.abs(values - expected).max()


@contextlib.contextmanager
def _whole_float32() -> Iterator[None]:
    """Context without TensorFloat-32, which rounds the factors of matrix products on GPUs to ten bits."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
