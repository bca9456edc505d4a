"""The colours of masks, one for each class, for pictures of masks and for overlays on images."""

import colorsys

import numpy as np

OVERLAY = 0.5  # share of the colours of classes over an image


def class_colors(count: int) -> np.ndarray:
    """Returns a colour for each of some classes, `(count, 3)` uint8; those of the first ones never change."""
    # Hues a golden ratio apart never coincide, and neighbours differ in brightness.
    colors = [
        colorsys.hsv_to_rgb(0.55 + 0.618034 * i, (0.65, 0.9, 0.45)[i % 3], (1.0, 0.75, 0.9)[i % 3])
        for i in range(count)
    ]
    return np.round(255 * np.array(colors).reshape(-1, 3)).astype(np.uint8)


def colored(mask: np.ndarray) -> np.ndarray:
    """Returns a mask, `(H, W)` integers, as a picture `(H, W, 3)` uint8; negative classes are black."""
    colors = np.concatenate([class_colors(max(int(mask.max()) + 1, 1)), np.zeros((1, 3), np.uint8)])
    return colors[np.where(mask < 0, len(colors) - 1, mask)]


def overlaid(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns an image, `(H, W, 3)` or `(H, W, 1)` in [0, 255], overlaid with its mask's colours, `(H, W, 3)` uint8."""
    mixed = (1 - OVERLAY) * np.broadcast_to(image, (*mask.shape, 3)) + OVERLAY * colored(mask)
    return np.round(np.where(mask[..., np.newaxis] < 0, image, mixed)).astype(np.uint8)
