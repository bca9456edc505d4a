"""What the pipeline is measured against: one file after the other, by Pillow and NumPy, as training in PyTorch has it.

Decode the whole file, random resized crop, flip, and an array. `Image.draft`, which has libjpeg decode at a half or
less of the size, is not used: of files of 500x375 pixels, a half is less than 224 pixels.
"""

import math

import numpy as np
from PIL import Image

from experiments.benchmarks.pipeline.settings import CROP_SCALE

ASPECT_RATIOS = (3 / 4, 4 / 3)
ATTEMPTS = 10


def load(path, size, normalization, generator):
    """Returns the image of a file as training may see it.

    Args:
        path: of the file.
        size: `(height, width)` in pixels.
        normalization: mean and standard deviation of each channel, two float32 arrays; None for none.
        generator: a `random.Random`.

    Returns:
        `(*size, 3)`: float32 if normalized, else uint8.
    """
    with Image.open(path) as file:
        image = file.convert("RGB")
    image = crop_and_resize(image, draw_window(*image.size, generator), size)
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(image)
    if normalization is None:
        return pixels
    mean, std = normalization
    pixels = pixels.astype(np.float32)
    pixels /= 255.0
    pixels -= mean
    pixels /= std
    return pixels


def crop_and_resize(image, window, size):
    """Returns the window `(left, top, width, height)` of an image, of `size`, `(height, width)`."""
    left, top, width, height = window
    return image.crop((left, top, left + width, top + height)).resize(size[::-1], Image.Resampling.BICUBIC)


def draw_window(width, height, generator):
    """Draws a window of random area and aspect ratio, as torchvision's `RandomResizedCrop` does.

    Returns:
        `(left, top, width, height)`; the whole image if ten draws do not fit.
    """
    for _ in range(ATTEMPTS):
        area = width * height * generator.uniform(*CROP_SCALE)
        ratio = math.exp(generator.uniform(*map(math.log, ASPECT_RATIOS)))
        part_width, part_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < part_width <= width and 0 < part_height <= height:
            left, top = generator.randint(0, width - part_width), generator.randint(0, height - part_height)
            return left, top, part_width, part_height
    return 0, 0, width, height
