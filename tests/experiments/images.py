"""Image files made on the spot."""

import io

import numpy as np
from PIL import Image


def gradient(height, width, channels=3):
    """A picture without details, `(height, width, channels)` uint8: red grows down, green to the right, blue falls."""
    down, right = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    planes = [60 + 150 * down, 60 + 150 * right, 220 - 100 * down]
    return np.stack(planes[:channels], axis=-1).round().astype(np.uint8)


def encode(pixels, kind="png", mode=None, **options):
    """The bytes of an image file.

    Args:
        pixels: `(H, W)` or `(H, W, C)` array, or a Pillow image.
        kind: Pillow's name of the format.
        mode: Pillow's name of the mode that the image is converted to first.
        **options: of Pillow's `save`.
    """
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.squeeze(pixels))
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def numbered(count, side=8):
    """`count` PNG files; the one at position i is grey of the value `3 * i` all over."""
    return np.array([encode(np.full((side, side), 3 * i, np.uint8)) for i in range(count)], dtype=object)


def broken_inside(pixels):
    """A PNG file with good header and end, whose data is damaged."""
    content = bytearray(encode(pixels))
    start = content.index(b"IDAT") + 4
    content[start + 8 : start + 24] = bytes(16)
    return bytes(content)


def write(path, content):
    """Writes a file and the folders that it lies in; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def varied(channels, side=40):
    """Images on which operations behave in different ways, `{name: (H, W, channels) uint8}`."""
    rng = np.random.default_rng(0)
    shape = (side, side + 7, channels)
    return {
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "smooth": gradient(*shape),
        "dark": rng.integers(3, 30, shape, dtype=np.uint8),
        "two tones": rng.choice([20, 200], shape).astype(np.uint8),
        "one tone": np.full(shape, 77, np.uint8),
        "tiny": rng.integers(0, 256, (5, 4, channels), dtype=np.uint8),
    }


def to_pillow(pixels):
    """A Pillow image of the mode L or RGB of `(H, W, channels)` uint8."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def from_pillow(image):
    """`(H, W, channels)` uint8 of a Pillow image of the mode L or RGB."""
    pixels = np.asarray(image)
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
