"""The layout of visible patches: maps between the image grid and a compact array of visible rows.

Every image keeps the same number K of patches, and at each stage a patch is a square of r x r positions, so the
visible positions of a batch fit an array `(B, K * r * r, C)` without gaps. Both directions are a gather by index, and
each is the gradient of the other, so no scatter-add is needed.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from convnext.types import Tensor


def split_patches(visible: Tensor, num_visible: int) -> tuple[Tensor, Tensor]:
    """Returns the indices of the visible and of the masked patches of each image, both int32 and ascending.

    Args:
        visible: `(B, L)`, 1 for visible patches and 0 for masked ones, with exactly K ones in each row.
        num_visible: K.

    Returns:
        `(B, K)` and `(B, L - K)`.
    """
    num_patches = visible.shape[1]
    position = ops.arange(num_patches, dtype="float32")
    # Visible patches first; within each kind the order stays.
    order = ops.argsort(position - num_patches * ops.cast(visible, "float32"), axis=1)
    order = ops.cast(order, "int32")
    return order[:, :num_visible], order[:, num_visible:]


def nan_unless_exact(values: Tensor, visible: Tensor, num_visible: int) -> Tensor:
    """Returns `values`, `(B, ...)`, with NaN for images whose number of visible patches is not K.

    So a wrong mask shows at once, without synchronizing with the device.
    """
    exact = ops.sum(ops.cast(visible, "float32"), axis=1) == num_visible
    exact = ops.reshape(exact, (-1,) + (1,) * (len(values.shape) - 1))
    return ops.where(exact, values, ops.cast(float("nan"), values.dtype))


def gather_patches(patches: Tensor, indices: Tensor) -> Tensor:
    """Takes some patches of each image: `(B, L, values)` by `(B, K)` to `(B, K, values)`."""
    if keras.backend.backend() == "jax":
        # If indices stay inside an image, the compiler can give each device its share of the batch.
        return ops.take_along_axis(patches, indices[:, :, None], axis=1)
    _, num_patches, values = patches.shape
    first = ops.arange(ops.shape(indices)[0], dtype="int32")[:, None] * num_patches
    return ops.take(ops.reshape(patches, (-1, values)), first + indices, axis=0)


def rank_patches(visible: Tensor, num_visible: int) -> Tensor:
    """Returns the place of each patch among the visible ones of its image, `(B, L)` int32; K for masked patches.

    Args:
        visible: `(B, L)`, 1 for visible patches and 0 for masked ones.
        num_visible: K; where there are more, those after the first K count as masked.
    """
    kept = ops.cast(visible, "int32")
    return ops.where(kept > 0, ops.minimum(ops.cumsum(kept, axis=1) - 1, num_visible), num_visible)


class StageLayout:
    """The visible positions of a batch at one stage.

    Args:
        indices: `(B, K)` int32, the visible patches of `split_patches`.
        ranks: `(B, L)` int32, of `rank_patches`.
        grid: `(rows, columns)` of the patches.
        factor: side `r` of a patch, in positions of the stage.

    Attributes:
        num_rows: visible positions of an image, `K * r * r`.
    """

    def __init__(self, indices: Tensor, ranks: Tensor, grid: tuple[int, int], factor: int) -> None:
        self._height, self._width = grid[0] * factor, grid[1] * factor
        self.num_rows = indices.shape[1] * factor * factor
        self._grid_of_row = self._positions_of_rows(indices, grid, factor)
        self._row_of_grid = self._rows_of_positions(ranks, indices.shape[1], grid, factor)

    def _positions_of_rows(self, indices: Tensor, grid: tuple[int, int], factor: int) -> Tensor:
        """Returns the position of each row of an image in the flattened `(H, W)`, `(B, K * r * r)`."""
        inside = ops.arange(factor, dtype="int32")
        row = (indices // grid[1] * factor)[:, :, None, None] + inside[:, None]
        column = (indices % grid[1] * factor)[:, :, None, None] + inside
        return ops.reshape(row * self._width + column, (-1, self.num_rows))

    def _rows_of_positions(self, ranks: Tensor, num_visible: int, grid: tuple[int, int], factor: int) -> Tensor:
        """Returns the row of each position of the flattened `(H, W)`; for masked ones the row after the last."""
        inside = ops.arange(factor, dtype="int32")
        rows = ops.reshape(ranks * factor**2, (-1, grid[0], 1, grid[1], 1)) + (inside[:, None, None] * factor + inside)
        hidden = ops.reshape(ranks == num_visible, (-1, grid[0], 1, grid[1], 1))
        return ops.reshape(ops.where(hidden, self.num_rows, rows), (-1, self._height * self._width))

    def to_grid(self, rows: Tensor) -> Tensor:
        """Puts rows at their positions: `(B, K * r * r, C)` to `(B, H, W, C)`, zero at masked positions."""
        flat = _permute(rows, self._pad_and_take, self._take_rows)
        return ops.reshape(flat, (-1, self._height, self._width, rows.shape[-1]))

    def to_rows(self, feature_map: Tensor) -> Tensor:
        """Takes the visible positions: `(B, H, W, C)` to `(B, K * r * r, C)`."""
        flat = ops.reshape(feature_map, (-1, self._height * self._width, feature_map.shape[-1]))
        return _permute(flat, self._take_rows, self._pad_and_take)

    def _take_rows(self, positions: Tensor) -> Tensor:
        return gather_patches(positions, self._grid_of_row)

    def _pad_and_take(self, rows: Tensor) -> Tensor:
        return gather_patches(ops.pad(rows, ((0, 0), (0, 1), (0, 0))), self._row_of_grid)


def _permute(values: Tensor, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies `forward`; gradients go through `backward`, its transpose."""

    @ops.custom_gradient
    def apply(values: Tensor) -> Tensor:
        def gradient(*arguments: Any, upstream: Tensor | None = None) -> Any:
            return backward(arguments[0] if upstream is None else upstream)

        return forward(values), gradient

    return apply(values)
