"""Resizing and pooling of feature maps, as products with matrices of weights.

The matrices are small beside the convolutions around them. They work for sizes that are known when a graph runs, have
the same values on every backend, and their gradient is a sum in a fixed order.
"""

from keras import ops

from convnext.types import Tensor


def size_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns height and width of `(B, H, W, C)`: numbers where they are known, else scalar tensors."""
    height, width = ops.shape(x)[1:3]
    return height, width


def resize(x: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Resizes `(B, h, w, C)` to `(B, height, width, C)`, bilinear between the centres of the positions.

    Up to rounding what PyTorch does with `align_corners=False`, and TensorFlow without antialiasing.
    """
    rows, columns = size_of(x)
    return _weigh(x, _interpolation(rows, height), _interpolation(columns, width))


def pool_to_grid(x: Tensor, bins: int) -> Tensor:
    """Averages `(B, H, W, C)` over the cells of a grid: `(B, bins, bins, C)`, as PyTorch's adaptive average pooling."""
    rows, columns = size_of(x)
    return _weigh(x, _averages(rows, bins), _averages(columns, bins))


def _weigh(x: Tensor, of_rows: Tensor, of_columns: Tensor) -> Tensor:
    """Multiplies rows and columns of `(B, h, w, C)` with matrices `(H, h)` and `(W, w)`: `(B, H, W, C)`."""
    rows, columns = size_of(x)
    channels = x.shape[-1]
    height, width = ops.shape(of_rows)[0], ops.shape(of_columns)[0]
    x = ops.matmul(ops.cast(of_rows, x.dtype), ops.reshape(x, (-1, rows, columns * channels)))
    x = ops.matmul(ops.cast(of_columns, x.dtype), ops.reshape(x, (-1, columns, channels)))
    return ops.reshape(x, (-1, height, width, channels))


def _interpolation(size: Tensor, new_size: Tensor) -> Tensor:
    """Returns the weights, `(new_size, size)`, of linear interpolation."""
    scale = ops.cast(size, "float32") / ops.cast(new_size, "float32")
    centres = (_positions(new_size) + 0.5) * scale - 0.5
    centres = ops.clip(centres, 0.0, ops.cast(size, "float32") - 1.0)
    return ops.maximum(1.0 - ops.abs(centres[:, None] - _positions(size)), 0.0)


def _averages(size: Tensor, bins: int) -> Tensor:
    """Returns the weights, `(bins, size)`, of the means over `bins` ranges, which share a position where they must."""
    number = ops.arange(bins, dtype="int32")
    first, end = number * size // bins, ((number + 1) * size + bins - 1) // bins
    positions = ops.arange(size, dtype="int32")
    inside = (positions >= first[:, None]) & (positions < end[:, None])
    return ops.cast(inside, "float32") / ops.cast(end - first, "float32")[:, None]


def _positions(size: Tensor) -> Tensor:
    return ops.cast(ops.arange(size, dtype="int32"), "float32")
