"""The residual block of ConvNeXt V2."""

import keras

from convnext.layers import EPSILON, GlobalResponseNormalization, StochasticDepth


def initializer():
    """Initializer of every kernel: a normal distribution of standard deviation 0.02.

    The authors' truncated normal cuts at -2 and 2, a hundred standard deviations away; the one of Keras would cut
    at two, and have a standard deviation of 0.0176.
    """
    return keras.initializers.RandomNormal(stddev=0.02)


@keras.saving.register_keras_serializable(package="convnext")
class ConvNextV2Block(keras.layers.Layer):
    """ConvNeXt V2 block (https://arxiv.org/abs/2301.00808, figure 5).

    Depthwise convolution, LayerNorm, expansion to four times the channels, GELU, global response
    normalization, projection back, stochastic depth, residual.

    Args:
        dim: number of channels `C`.
        kernel_size: of the depthwise convolution.
        drop_path_rate: probability to drop the residual branch of an image in training, in [0, 1).

    Input and output: `(B, H, W, C)`.
    """

    def __init__(self, dim, kernel_size=7, drop_path_rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim
        self.kernel_size = kernel_size
        self.drop_path_rate = drop_path_rate
        self.depthwise_conv = keras.layers.DepthwiseConv2D(
            kernel_size,
            padding="same",
            depthwise_initializer=initializer(),
            dtype=self.dtype_policy,
            name="depthwise_conv",
        )
        self.norm = keras.layers.LayerNormalization(epsilon=EPSILON, dtype=self.dtype_policy, name="norm")
        self.expansion = keras.layers.Dense(
            4 * dim, kernel_initializer=initializer(), dtype=self.dtype_policy, name="expansion"
        )
        self.grn = GlobalResponseNormalization(dtype=self.dtype_policy, name="grn")
        self.projection = keras.layers.Dense(
            dim, kernel_initializer=initializer(), dtype=self.dtype_policy, name="projection"
        )
        self.drop_path = StochasticDepth(drop_path_rate, dtype=self.dtype_policy, name="drop_path")

    def build(self, input_shape):
        expanded = (*input_shape[:-1], 4 * self.dim)
        self.depthwise_conv.build(input_shape)
        self.norm.build(input_shape)
        self.expansion.build(input_shape)
        self.grn.build(expanded)
        self.projection.build(expanded)

    def call(self, inputs, visible=None, training=None):
        """Applies the block.

        Args:
            inputs: `(B, H, W, C)`; where `visible` is given, zero at hidden positions.
            visible: `(B, H, W, 1)`, 1 where a position exists and 0 where it is hidden, or None when all
                exist. Hidden positions enter no statistic and come out as they went in.
            training: whether stochastic depth is at work.
        """
        branch = self.mix_channels(self.depthwise_conv(inputs), visible=visible, training=training)
        if visible is not None:
            branch = branch * visible
        return inputs + branch

    def mix_channels(self, x, visible=None, training=None):
        """The part of the branch that works on each position alone, but for the statistics of GRN.

        Args:
            x: `(B, ..., C)`, the output of the depthwise convolution.
            visible: `(B, ..., 1)` or None, the positions that count in the statistics.
            training: whether stochastic depth is at work.

        Returns:
            `(B, ..., C)`.
        """
        x = self.expansion(self.norm(x))
        x = self.grn(keras.activations.gelu(x, approximate=False), visible=visible)
        return self.drop_path(self.projection(x), training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "dim": self.dim,
            "kernel_size": self.kernel_size,
            "drop_path_rate": self.drop_path_rate,
        }
