"""Stem, downsampling and stages of a ConvNeXt."""

import functools
from collections.abc import Sequence
from typing import Any

import keras

from convnext.blocks import ConvNextBlock, initializer
from convnext.composite import Composite, attributes
from convnext.layers import EPSILON, LayerNormalization
from convnext.remat import checkpointed
from convnext.tf_cpu.convolutions import PatchConv
from convnext.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="convnext")
class Stem(Composite, keras.layers.Layer):
    """Cuts the image into patches of `stride` x `stride` pixels and embeds each: convolution, LayerNorm.

    Input: `(B, H, W, channels)`. Output: `(B, H // stride, W // stride, dim)`.

    Args:
        dim: number of output channels.
        stride: side of a patch in pixels; the kernel is as large, so patches never overlap.
        epsilon: of the normalization.
    """

    def __init__(self, dim: int, stride: int = 4, epsilon: float = EPSILON, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.stride = stride
        self.epsilon = epsilon
        self.conv = PatchConv(dim, stride, kernel_initializer=initializer(), dtype=self.dtype_policy, name="conv")
        self.norm = LayerNormalization(epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape: Shape) -> None:
        self.conv.build(input_shape)
        self.norm.build((*input_shape[:-1], self.dim))
        self.input_spec = self.conv.input_spec

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.conv.compute_output_shape(input_shape)

    def call(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dim": self.dim, "stride": self.stride, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="convnext")
class Downsampling(Composite, keras.layers.Layer):
    """Halves height and width between two stages: LayerNorm, then a 2x2 convolution of stride 2.

    Input: `(B, H, W, C)`. Output: `(B, H // 2, W // 2, dim)`.

    Args:
        dim: number of output channels.
        stride: 2, or 1 to keep the resolution, as timm does with `output_stride`; the convolution is padded then.
        dilation: of the convolution of stride 1.
        epsilon: of the normalization.
    """

    def __init__(self, dim: int, stride: int = 2, dilation: int = 1, epsilon: float = EPSILON, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.stride = stride
        self.dilation = dilation
        self.epsilon = epsilon
        self.norm = LayerNormalization(epsilon, dtype=self.dtype_policy, name="norm")
        arguments = {"kernel_initializer": initializer(), "dtype": self.dtype_policy, "name": "conv"}
        if stride == 2:
            self.conv = PatchConv(dim, 2, **arguments)
        else:
            self.conv = keras.layers.Conv2D(
                dim, 2, padding="same", dilation_rate=dilation, data_format="channels_last", **arguments
            )

    def build(self, input_shape: Shape) -> None:
        self.norm.build(input_shape)
        self.conv.build(input_shape)
        self.input_spec = self.conv.input_spec

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.conv.compute_output_shape(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        return self.conv(self.norm(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **attributes(self, "dim", "stride", "dilation", "epsilon")}


@keras.saving.register_keras_serializable(package="convnext")
class Stage(Composite, keras.layers.Layer):
    """One resolution of the model: downsampling (but in the first stage), then blocks.

    Args:
        downsampling: a `Downsampling` layer, or None.
        blocks: list of blocks of the same width.
    """

    def __init__(self, downsampling: Downsampling | None, blocks: Sequence[ConvNextBlock], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.downsampling = downsampling
        self.blocks = blocks

    def build(self, input_shape: Shape) -> None:
        # Keras builds what it reads from a file.
        if self.downsampling is not None and not self.downsampling.built:
            self.downsampling.build(input_shape)
        for block in self.blocks:
            if not block.built:
                block.build((None, None, None, block.dim))
        self.input_spec = (self.downsampling or self.blocks[0]).input_spec

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape if self.downsampling is None else self.downsampling.compute_output_shape(input_shape)

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        return checkpointed(["stage"], [self], functools.partial(self._apply, training=training), x, training)

    def _apply(self, x: Tensor, training: bool | None) -> Tensor:
        if self.downsampling is not None:
            x = self.downsampling(x)
        for block in self.blocks:
            apply_block = functools.partial(block.__call__, training=training)
            x = checkpointed(["block"], [block], apply_block, x, training)
        return x

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "downsampling": keras.saving.serialize_keras_object(self.downsampling),
            "blocks": [keras.saving.serialize_keras_object(block) for block in self.blocks],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        downsampling = keras.saving.deserialize_keras_object(config["downsampling"])
        blocks = [keras.saving.deserialize_keras_object(block) for block in config["blocks"]]
        return super().from_config({**config, "downsampling": downsampling, "blocks": blocks})
