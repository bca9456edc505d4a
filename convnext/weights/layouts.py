"""How arrays are laid out in PyTorch and in the authors' sparse convolutions, and in Keras.

A `Layout` is a pair of functions, each the other's inverse. Keras has kernels as `(rows, columns, in, out)` and
`(in, out)`, depthwise kernels as `(rows, columns, C, 1)`, and everything else as `(C,)`.
"""

import dataclasses
import math
import typing

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """A layout of an array elsewhere.

    Args:
        ndims: the numbers of axes that the array may have there.
        to_keras: function from the array there to the one of Keras.
        from_keras: function from the array of Keras to the one there.
    """

    ndims: tuple[int, ...]
    to_keras: typing.Callable[[np.ndarray], np.ndarray]
    from_keras: typing.Callable[[np.ndarray], np.ndarray]


def _last_axis(ndim):
    """A vector whose other axes have one entry: `(1, ..., 1, C)`."""
    return Layout((ndim,), lambda array: array.reshape(-1), lambda array: array.reshape((1,) * (ndim - 1) + (-1,)))


def _from_offsets(kernel):
    """`(rows * columns, ...)`, row fastest, to `(rows, columns, ...)`."""
    side = math.isqrt(len(kernel))
    if side**2 != len(kernel):
        raise ValueError("has a kernel that is no square")
    return kernel.reshape(side, side, *kernel.shape[1:]).swapaxes(0, 1)


def _to_offsets(kernel):
    return kernel.swapaxes(0, 1).reshape(-1, *kernel.shape[2:])


def _from_pointwise(kernel):
    """`(out, in, 1, 1)` to `(in, out)`; takes `(out, in)` as well."""
    if any(side != 1 for side in kernel.shape[2:]):
        raise ValueError("is no 1x1 convolution")
    return kernel.reshape(kernel.shape[:2]).T


VECTOR = _last_axis(1)

# PyTorch.
CONVOLUTION = Layout((4,), lambda array: array.transpose(2, 3, 1, 0), lambda array: array.transpose(3, 2, 0, 1))
DEPTHWISE = Layout((4,), lambda array: array.transpose(2, 3, 0, 1), lambda array: array.transpose(2, 3, 0, 1))
DENSE = Layout((2,), lambda array: array.T, lambda array: array.T)
# A dense layer as a 1x1 convolution, or either of the two.
POINTWISE = Layout((4,), _from_pointwise, lambda array: array.T[:, :, None, None])
DENSE_OR_POINTWISE = Layout((2, 4), _from_pointwise, lambda array: array.T)
CHANNELS_LAST_VECTOR = _last_axis(4)
CHANNELS_FIRST_VECTOR = Layout((4,), lambda array: array.reshape(-1), lambda array: array.reshape(1, -1, 1, 1))

# The authors' sparse convolutions: the offsets of a kernel are one axis, of which the row runs fastest.
SPARSE_CONVOLUTION = Layout((3,), _from_offsets, _to_offsets)
SPARSE_DEPTHWISE = Layout((2,), lambda array: _from_offsets(array)[..., None], lambda array: _to_offsets(array[..., 0]))
SPARSE_VECTOR = _last_axis(2)
