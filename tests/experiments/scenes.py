"""Small images with masks: a red square and a blue disc on green, so that a class follows from the pixels."""

import numpy as np

from tests.experiments.images import encode, write

NAMES = ("ground", "square", "disc")
IGNORED = 250


def scene(seed, size=(40, 48)):
    """An image `(H, W, 3)` uint8 and its mask, `(H, W)` uint8, of the numbers of `NAMES` and, on a strip, 250."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, np.uint8)
    top, left = rng.integers(2, 14, 2)
    mask[top : top + 14, left : left + 14] = 1
    centre = rng.integers(26, 34), rng.integers(30, 40)
    mask[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 49] = 2
    image = np.array([[90, 120, 60], [220, 60, 60], [40, 60, 200]])[mask] + rng.normal(0, 8, (*size, 3))
    mask[:3] = IGNORED
    return np.clip(image, 0, 255).astype(np.uint8), mask


def write_scenes(root, train=8, val=4, test=4, **options):
    """A folder of scenes with the file of their names; returns its path."""
    seed = 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        for i in range(count):
            image, mask = scene(seed, **options)
            write(root / f"images/{split}/{i}.png", encode(image))
            write(root / f"masks/{split}/{i}.png", encode(mask))
            seed += 1
    (root / "classes.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(NAMES)), encoding="utf-8")
    return root
