"""The residual blocks of ConvNeXt, V1 and V2."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from convnext.composite import Composite, attributes
from convnext.layers import (
    ACTIVATIONS,
    EPSILON,
    GlobalResponseNormalization,
    LayerNormalization,
    LayerScale,
    StochasticDepth,
    gelu,
    in_float32,
    normalize_response,
)
from convnext.tf_cpu.convolutions import DepthwiseConv
from convnext.tf_cpu.devices import compiles_chains, is_tensorflow_on_cpu
from convnext.tf_cpu.fusion import fused, fused_matmul
from convnext.types import Shape, Tensor


def initializer() -> keras.Initializer:
    """Initializer of every kernel: a normal distribution of standard deviation 0.02.

    The authors' truncated normal cuts at -2 and 2, a hundred standard deviations away; the one of Keras would cut
    at two, and have a standard deviation of 0.0176.
    """
    return keras.initializers.RandomNormal(stddev=0.02)


def dense(units: int, dtype: Any, name: str) -> keras.layers.Dense:
    """Returns a dense layer with the initial weights of every kernel here."""
    return keras.layers.Dense(units, kernel_initializer=initializer(), dtype=dtype, name=name)


class ConvNextBlock(Composite, keras.layers.Layer):
    """The base class of both versions' blocks, which extend the halves of the branch, `expand` and `project`.

    Args:
        dim: number of channels `C`.
        kernel_size: of the depthwise convolution.
        drop_path_rate: probability to drop the residual branch of an image in training, in [0, 1).
        epsilon: of the layer normalization.
        activation: `gelu`, or `gelu_tanh` for its approximation.
        dilation: of the depthwise convolution.

    Input and output: `(B, H, W, C)`.

    Raises:
        ValueError: if the activation is unknown, or the block is built for another number of channels.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        drop_path_rate: float = 0.0,
        epsilon: float = EPSILON,
        activation: str = "gelu",
        dilation: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is not one of {', '.join(ACTIVATIONS)}.")
        self.dim = dim
        self.kernel_size = kernel_size
        self.drop_path_rate = drop_path_rate
        self.epsilon = epsilon
        self.activation = activation
        self.dilation = dilation
        self.depthwise_conv = DepthwiseConv(
            kernel_size, dilation, depthwise_initializer=initializer(), dtype=self.dtype_policy, name="depthwise_conv"
        )
        self.norm = LayerNormalization(epsilon, dtype=self.dtype_policy, name="norm")
        self.expansion = dense(4 * dim, self.dtype_policy, "expansion")
        self.projection = dense(dim, self.dtype_policy, "projection")
        self.drop_path = StochasticDepth(drop_path_rate, dtype=self.dtype_policy, name="drop_path")
        # XLA's depthwise convolution on a CPU is several times slower than TensorFlow's, so what Keras does by itself
        # in `compile` is not to compile a model of such blocks.
        self.supports_jit = not is_tensorflow_on_cpu()

    def build(self, input_shape: Shape) -> None:
        if input_shape[-1] != self.dim:
            raise ValueError(f"A block of {self.dim} channels cannot be built for {input_shape[-1]}.")
        self.depthwise_conv.build(input_shape)
        self.norm.build(input_shape)
        self.expansion.build(input_shape)
        self.projection.build((*input_shape[:-1], 4 * self.dim))
        self.input_spec = keras.layers.InputSpec(axes={-1: self.dim})

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def call(self, inputs: Tensor, visible: Tensor | None = None, training: bool | None = None) -> Tensor:
        """Applies the block.

        Args:
            inputs: `(B, H, W, C)`; where `visible` is given, zero at masked positions.
            visible: `(B, H, W, 1)`, 1 where a position is visible and 0 where it is masked, or None when all
                exist. Hidden positions enter no statistic and come out as they went in.
            training: whether stochastic depth is at work.
        """
        inputs = ops.cast(inputs, self.compute_dtype)  # TimeDistributed leaves out what Keras would cast
        branch = self.mix_channels(self.depthwise_conv(inputs), visible=visible, training=training)
        if visible is not None:
            branch = branch * visible
        return inputs + branch

    def mix_channels(self, x: Tensor, visible: Tensor | None = None, training: bool | None = None) -> Tensor:
        """The branch after the depthwise convolution: position by position, except for the statistics of GRN.

        Args:
            x: `(B, ..., C)`, the output of the depthwise convolution.
            visible: `(B, ..., 1)` or None, the positions that count in the statistics.
            training: whether stochastic depth is at work.

        Returns:
            `(B, ..., C)`.
        """
        return self.project(self.expand(x, visible=visible, training=training), training=training)

    def expand(self, x: Tensor, visible: Tensor | None = None, training: bool | None = None) -> Tensor:
        """The first half of `mix_channels`: LayerNorm, expansion, GELU, `(B, ..., C)` to `(B, ..., 4 * C)`."""
        return gelu(self.expansion(self.norm(x)), self.activation, training)

    def project(self, x: Tensor, training: bool | None = None) -> Tensor:
        """The second half of `mix_channels`, position by position: `(B, ..., 4 * C)` to `(B, ..., C)`."""
        return self.drop_path(self.projection(x), training=training)

    def get_config(self) -> dict[str, Any]:
        own = attributes(self, "dim", "kernel_size", "drop_path_rate", "epsilon", "activation", "dilation")
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="convnext")
class ConvNextV1Block(ConvNextBlock):
    """ConvNeXt block (https://arxiv.org/abs/2201.03545, figure 4).

    Depthwise convolution, LayerNorm, expansion to four times the channels, GELU, projection back, layer scale,
    stochastic depth, residual.

    Args:
        *arguments, **named_arguments: of `ConvNextBlock`.
        layer_scale_init: initial value of the layer scale.

    Input and output: `(B, H, W, C)`.
    """

    def __init__(self, *arguments: Any, layer_scale_init: float = 1e-6, **named_arguments: Any) -> None:
        super().__init__(*arguments, **named_arguments)
        self.layer_scale_init = layer_scale_init
        self.layer_scale = LayerScale(layer_scale_init, dtype=self.dtype_policy, name="layer_scale")

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.layer_scale.build(input_shape)

    def project(self, x: Tensor, training: bool | None = None) -> Tensor:
        """Projection, layer scale, stochastic depth."""
        return self.drop_path(self.layer_scale(self.projection(x)), training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer_scale_init": self.layer_scale_init}


@keras.saving.register_keras_serializable(package="convnext")
class ConvNextV2Block(ConvNextBlock):
    """ConvNeXt V2 block (https://arxiv.org/abs/2301.00808, figure 5).

    Depthwise convolution, LayerNorm, expansion to four times the channels, GELU, global response
    normalization, projection back, stochastic depth, residual.

    Arguments, input and output are those of `ConvNextBlock`.
    """

    def __init__(self, *arguments: Any, **named_arguments: Any) -> None:
        super().__init__(*arguments, **named_arguments)
        self.grn = GlobalResponseNormalization(dtype=self.dtype_policy, name="grn")

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.grn.build((*input_shape[:-1], 4 * self.dim))

    def mix_channels(self, x: Tensor, visible: Tensor | None = None, training: bool | None = None) -> Tensor:
        if not _is_fused(visible, training):
            return super().mix_channels(x, visible=visible, training=training)
        # What stands between the two matrix products in one pass over memory, and none of it kept.
        x = self._expand_linearly(x)
        kernel = ops.cast(self.projection.kernel, x.dtype)
        x = fused_matmul(_activation_and_grn(self.activation))(x, kernel, *self._between_products())
        return self.drop_path(x + ops.cast(self.projection.bias, x.dtype), training=training)

    def expand(self, x: Tensor, visible: Tensor | None = None, training: bool | None = None) -> Tensor:
        """LayerNorm, expansion, GELU, global response normalization."""
        if not _is_fused(visible, training):
            return self.grn(super().expand(x, training=training), visible=visible)
        return fused(_activation_and_grn(self.activation))(self._expand_linearly(x), *self._between_products())

    def _expand_linearly(self, x: Tensor) -> Tensor:
        """LayerNorm, and the expansion without its bias."""
        x = self.norm(x)
        return ops.matmul(x, ops.cast(self.expansion.kernel, x.dtype))

    def _between_products(self) -> list[Tensor]:
        return in_float32(self.expansion.bias, self.grn.gamma, self.grn.beta)


def _is_fused(visible: Tensor | None, training: bool | None) -> bool:
    return bool(training) and visible is None and compiles_chains()


@functools.cache  # one function an activation, which is compiled once
def _activation_and_grn(activation: str) -> Callable[..., Tensor]:
    def activate_and_normalize(x: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Bias, GELU and GRN of `(B, ..., C)`."""
        x = x + ops.cast(bias, x.dtype)
        return normalize_response(gelu(x, activation), gamma, beta)

    return activate_and_normalize
