"""Which patches are visible: the grid, sampling, and the mask at every resolution.

A patch is the unit of masking, a square with a side of `patch_size` pixels, the total stride of the encoder. A mask is
`visible`, `(B, L)`: 1 for patches that are kept and 0 for masked ones; the L patches are numbered row by row.
"""

import math
from collections.abc import Callable

from keras import ops

from convnext.types import Tensor


def patch_grid(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """Returns `(rows, columns)` of the grid of patches.

    Raises:
        ValueError: if the patches do not tile the image; the message names the nearest sizes that they tile.
    """
    if height % patch_size or width % patch_size or not height or not width:
        nearest = [
            f"{_nearest(height, patch_size, math.floor)}x{_nearest(width, patch_size, math.floor)}",
            f"{_nearest(height, patch_size, math.ceil)}x{_nearest(width, patch_size, math.ceil)}",
        ]
        raise ValueError(
            f"An image of {height}x{width} cannot be cut into patches of {patch_size}x{patch_size} pixels; the "
            f"nearest sizes that do are {' and '.join(dict.fromkeys(nearest))}."
        )
    return height // patch_size, width // patch_size


def _nearest(side: int, patch_size: int, rounding: Callable[[float], int]) -> int:
    return max(1, rounding(side / patch_size)) * patch_size


def num_visible(num_patches: int, mask_ratio: float) -> int:
    """Returns how many of `num_patches` stay visible: K = floor(L * (1 - mask_ratio)), 19 of 49 at 0.6.

    Raises:
        ValueError: if the ratio is outside (0, 1), or leaves nothing visible or nothing masked.
    """
    if not 0.0 < mask_ratio < 1.0:
        raise ValueError(f"mask_ratio, the fraction of masked patches, must be in (0, 1), got {mask_ratio}.")
    # 1e-9 compensates rounding errors: 25 * (1 - 0.8) is 4.999999999999999.
    visible = math.floor(num_patches * (1.0 - mask_ratio) + 1e-9)
    if not 0 < visible < num_patches:
        raise ValueError(
            f"mask_ratio={mask_ratio} leaves {visible} of {num_patches} patches visible: at least one has to be "
            "visible and one masked. Use another ratio, a larger image or a smaller patch."
        )
    return visible


def sample_visible(noise: Tensor, mask_ratio: float) -> Tensor:
    """Keeps the patches with the smallest noise, the same number in every image.

    Args:
        noise: `(B, L)`, independent uniform draws.
        mask_ratio: share of masked patches, in (0, 1).

    Returns:
        `visible`, `(B, L)` float32 of 0 and 1 with `num_visible(L, mask_ratio)` ones per row.
    """
    keep = num_visible(noise.shape[1], mask_ratio)
    rank = ops.argsort(ops.argsort(noise, axis=1), axis=1)
    return ops.cast(rank < keep, "float32")


def upsample_mask(visible: Tensor, grid: tuple[int, int], factor: int) -> Tensor:
    """Upsamples a mask to the resolution of a feature map.

    Args:
        visible: `(B, L)`.
        grid: `(rows, columns)` of the patches.
        factor: side of a patch, in positions of the feature map.

    Returns:
        `(B, rows * factor, columns * factor, 1)`.
    """
    rows, columns = grid
    mask = ops.reshape(visible, (-1, rows, 1, columns, 1, 1))
    mask = ops.broadcast_to(mask, (ops.shape(visible)[0], rows, factor, columns, factor, 1))
    return ops.reshape(mask, (-1, rows * factor, columns * factor, 1))


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cuts images into patches: `(B, H, W, C)` to `(B, L, patch_size * patch_size * C)`.

    The values of a patch are ordered (row, column, channel).
    """
    _, height, width, channels = images.shape
    rows, columns = patch_grid(height, width, patch_size)
    patches = ops.reshape(images, (-1, rows, patch_size, columns, patch_size, channels))
    patches = ops.transpose(patches, (0, 1, 3, 2, 4, 5))
    return ops.reshape(patches, (-1, rows * columns, patch_size * patch_size * channels))


def unpatchify(patches: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """Assembles images from patches: the inverse of `patchify`.

    Args:
        patches: `(B, L, patch_size * patch_size * C)`.
        grid: `(rows, columns)` of the patches.
        patch_size: side of a patch in pixels.

    Returns:
        `(B, rows * patch_size, columns * patch_size, C)`.
    """
    rows, columns = grid
    channels = patches.shape[-1] // patch_size**2
    images = ops.reshape(patches, (-1, rows, columns, patch_size, patch_size, channels))
    images = ops.transpose(images, (0, 1, 3, 2, 4, 5))
    return ops.reshape(images, (-1, rows * patch_size, columns * patch_size, channels))
