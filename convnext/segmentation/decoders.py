"""Decoders: from the feature maps of all stages to one map at the resolution of the first.

Each position is normalized over its channels, as in the encoder, instead of the papers' normalization over the batch:
so a decoder computes the same whatever the batch, the number of devices, and what else is in the image.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from convnext.blocks import initializer
from convnext.composite import Composite
from convnext.layers import EPSILON, LayerNormalization
from convnext.segmentation.resizing import pool_to_grid, resize, size_of
from convnext.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="convnext")
class ConvUnit(Composite, keras.layers.Layer):
    """Convolution that keeps height and width, layer normalization, ReLU: `(B, H, W, C)` to `(B, H, W, dim)`.

    Args:
        dim: number of output channels.
        kernel_size: side of the kernel, in positions.
    """

    def __init__(self, dim: int, kernel_size: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.kernel_size = kernel_size
        self.conv = keras.layers.Conv2D(
            dim,
            kernel_size,
            padding="same",
            use_bias=False,
            data_format="channels_last",
            kernel_initializer=initializer(),
            dtype=self.dtype_policy,
            name="conv",
        )
        self.norm = LayerNormalization(dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Shape) -> None:
        self.conv.build(input_shape)
        self.norm.build((*input_shape[:-1], self.dim))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return *input_shape[:-1], self.dim

    def call(self, inputs: Tensor) -> Tensor:
        return ops.relu(self.norm(self.conv(inputs)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dim": self.dim, "kernel_size": self.kernel_size}


class PyramidDecoder(Composite, keras.layers.Layer):
    """What decoders share: each feature map is normalized and brought to `dim` channels, and joins those above it.

    Input: feature maps `(B, h, w, C)`, those of the first stage first, as `ConvNeXt.extract_features` returns them; any
    number, each of any size. Output: `(B, h, w, dim)`, of the size of the first.

    Args:
        dim: number of output channels.
        epsilon: of the normalization of the feature maps.
    """

    def __init__(self, dim: int, epsilon: float = EPSILON, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.epsilon = epsilon
        self.norms: list[keras.layers.Layer] = []
        self.laterals: list[keras.layers.Layer] = []

    def build(self, input_shape: Sequence[Shape]) -> None:
        for i, shape in enumerate(input_shape):
            norm = LayerNormalization(self.epsilon, dtype=self.dtype_policy, name=f"norm_{i}")
            norm.build(shape)
            self.norms.append(norm)
            lateral = self._make_lateral(i, len(input_shape))
            lateral.build(shape)
            self.laterals.append(lateral)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        return *input_shape[0][:-1], self.dim

    def _make_lateral(self, stage: int, num_stages: int) -> keras.layers.Layer:
        return ConvUnit(self.dim, 1, dtype=self.dtype_policy, name=f"lateral_{stage}")

    def _top_down(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Returns a map of `dim` channels for each stage, to which those of all later stages are added."""
        maps = [lateral(norm(x)) for norm, lateral, x in zip(self.norms, self.laterals, features)]
        for i in reversed(range(len(maps) - 1)):
            maps[i] = maps[i] + resize(maps[i + 1], *size_of(maps[i]))
        return maps

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dim": self.dim, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="convnext")
class FPNDecoder(PyramidDecoder):
    """A light feature pyramid (https://arxiv.org/abs/1901.02446): one 3x3 convolution a stage, and the sum of all.

    Arguments, input and output are those of `PyramidDecoder`.
    """

    def build(self, input_shape: Sequence[Shape]) -> None:
        super().build(input_shape)
        self.convs = [ConvUnit(self.dim, dtype=self.dtype_policy, name=f"conv_{i}") for i in range(len(input_shape))]
        for conv, shape in zip(self.convs, input_shape):
            conv.build((*shape[:-1], self.dim))

    def call(self, features: Sequence[Tensor]) -> Tensor:
        first, *others = [conv(x) for conv, x in zip(self.convs, self._top_down(features))]
        for x in others:
            first = first + resize(x, *size_of(first))
        return first


BINS = (1, 2, 3, 6)  # sides of the grids that pyramid pooling averages over


@keras.saving.register_keras_serializable(package="convnext")
class PyramidPooling(Composite, keras.layers.Layer):
    """Pyramid pooling (https://arxiv.org/abs/1612.01105): a map beside its means over grids of several sizes.

    Input: `(B, H, W, C)`. Output: `(B, H, W, dim)`.

    Args:
        dim: number of output channels, and of those of each grid.
    """

    def __init__(self, dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.convs = [ConvUnit(dim, 1, dtype=self.dtype_policy, name=f"conv_{bins}") for bins in BINS]
        self.fusion = ConvUnit(dim, dtype=self.dtype_policy, name="fusion")

    def build(self, input_shape: Shape) -> None:
        for conv in self.convs:
            conv.build(input_shape)
        self.fusion.build((*input_shape[:-1], input_shape[-1] + len(BINS) * self.dim))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return *input_shape[:-1], self.dim

    def call(self, inputs: Tensor) -> Tensor:
        size = size_of(inputs)
        means = [resize(conv(pool_to_grid(inputs, bins)), *size) for conv, bins in zip(self.convs, BINS)]
        return self.fusion(ops.concatenate([inputs, *means], axis=-1))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dim": self.dim}


@keras.saving.register_keras_serializable(package="convnext")
class UPerDecoder(PyramidDecoder):
    """UPerNet (https://arxiv.org/abs/1807.10221), by which the ConvNeXt papers segment ADE20K, with `dim` of 512.

    Pyramid pooling of the last map, a feature pyramid, and a 3x3 convolution of all its maps side by side.
    Arguments, input and output are those of `PyramidDecoder`.
    """

    def _make_lateral(self, stage: int, num_stages: int) -> keras.layers.Layer:
        if stage == num_stages - 1:
            return PyramidPooling(self.dim, dtype=self.dtype_policy, name="pyramid_pooling")
        return super()._make_lateral(stage, num_stages)

    def build(self, input_shape: Sequence[Shape]) -> None:
        super().build(input_shape)
        lower = input_shape[:-1]
        self.convs = [ConvUnit(self.dim, dtype=self.dtype_policy, name=f"conv_{i}") for i in range(len(lower))]
        for conv, shape in zip(self.convs, lower):
            conv.build((*shape[:-1], self.dim))
        self.fusion = ConvUnit(self.dim, dtype=self.dtype_policy, name="fusion")
        self.fusion.build((*input_shape[0][:-1], len(input_shape) * self.dim))

    def call(self, features: Sequence[Tensor]) -> Tensor:
        *lower, last = self._top_down(features)
        first, *others = [*(conv(x) for conv, x in zip(self.convs, lower)), last]
        size = size_of(first)
        return self.fusion(ops.concatenate([first, *(resize(x, *size) for x in others)], axis=-1))


DECODERS = {"upernet": UPerDecoder, "fpn": FPNDecoder}
