"""The convolutions of ConvNeXt, computed in other ways where those of the framework are slow."""

from typing import Any

import keras
from keras import ops

from convnext.layers import check_layer_arguments
from convnext.tf_cpu.devices import is_jax_on_gpu, is_tensorflow_on_cpu
from convnext.types import Tensor


@keras.saving.register_keras_serializable(package="convnext")
class DepthwiseConv(keras.layers.DepthwiseConv2D):
    """Depthwise convolution of stride 1 that keeps the size, `(B, H, W, C)` to `(B, H, W, C)`.

    With TensorFlow on a CPU the gradient of the kernel is computed as `kernel_gradient` does. TensorFlow's own
    operation takes 1.7 to 8 times as long (batches of 4 and 8, feature maps of 56x56x40 to 7x7x768, 2 cores). On
    other devices and backends, for kernels of even size and for images of unknown size, the gradient is that of the
    framework. With JAX on a GPU, feature maps that are no larger than the kernel are padded; see `_margins`.

    Args:
        kernel_size: side of the kernel, or two sides.
        dilation: distance of the positions that the kernel sees; above 1 the convolution is that of the framework.
        depthwise_initializer: of the kernel.
        **kwargs: `name`, `dtype` and `trainable` of the layer.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, int],
        dilation: int = 1,
        depthwise_initializer: str | keras.Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        check_layer_arguments(kwargs)
        super().__init__(
            kernel_size,
            padding="same",
            data_format="channels_last",
            dilation_rate=dilation,
            depthwise_initializer=depthwise_initializer,
            **kwargs,
        )

    def call(self, inputs: Tensor) -> Tensor:
        height, width = inputs.shape[1:3]
        plain = max(self.dilation_rate) == 1 and all(side % 2 for side in self.kernel_size)
        if not plain or None in (height, width):
            return super().call(inputs)
        if is_tensorflow_on_cpu("depthwise_gradient"):
            return ops.add(_convolve(inputs, ops.cast(self.kernel, inputs.dtype)), self.bias)
        if is_jax_on_gpu():
            outputs = super().call(ops.pad(inputs, self._margins(height, width)))
            return outputs[:, :height, :width]
        return super().call(inputs)

    def _margins(self, height: int, width: int) -> list[list[int]]:
        """Zeros that make a feature map larger than the kernel.

        Without them XLA computes the gradient of the kernel as a convolution by the upstream gradient, which takes
        several times as long.
        """
        rows, columns = self.kernel_size
        return [[0, 0], [0, max(0, rows + 1 - height)], [0, max(0, columns + 1 - width)], [0, 0]]

    def get_config(self) -> dict[str, Any]:
        return {
            **keras.layers.Layer.get_config(self),
            "kernel_size": self.kernel_size,
            "dilation": self.dilation_rate[0],
            "depthwise_initializer": keras.initializers.serialize(self.depthwise_initializer),
        }


def kernel_gradient(inputs: Tensor, upstream: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """The gradient of the kernel of a depthwise convolution, as a depthwise convolution.

    An entry of the gradient is a sum over all positions of the inputs, moved by the offset of the entry, times
    the upstream gradient. That is a convolution of the inputs with the upstream gradient for a kernel, in which every
    image has channels of its own.

    Args:
        inputs: `(B, H, W, C)`.
        upstream: `(B, H, W, C)`, the gradient of the outputs.
        kernel_size: `(rows, columns)`, both odd.

    Returns:
        `(rows, columns, C, 1)` of the inputs' dtype, summed in float32.
    """
    dtype = inputs.dtype
    inputs, upstream = ops.cast(inputs, "float32"), ops.cast(upstream, "float32")
    batch, (height, width, channels) = ops.shape(inputs)[0], inputs.shape[1:]
    rows, columns = kernel_size
    margins = [[0, 0], [rows // 2, rows // 2], [columns // 2, columns // 2], [0, 0]]
    images = ops.transpose(ops.pad(inputs, margins), (1, 2, 0, 3))
    images = ops.reshape(images, (1, height + rows - 1, width + columns - 1, batch * channels))
    kernel = ops.reshape(ops.transpose(upstream, (1, 2, 0, 3)), (height, width, batch * channels, 1))
    gradient = ops.depthwise_conv(images, kernel, padding="valid", data_format="channels_last")
    return ops.cast(ops.sum(ops.reshape(gradient, (rows, columns, batch, channels)), axis=2)[..., None], dtype)


@ops.custom_gradient
def _convolve(inputs: Tensor, kernel: Tensor) -> Any:
    def gradient(*arguments: Any, upstream: Tensor | None = None) -> Any:
        upstream = arguments[0] if upstream is None else upstream
        # One axis at a time: Keras before 3.13 flips no two at once on TensorFlow.
        of_inputs = _same(upstream, ops.flip(ops.flip(kernel, axis=0), axis=1))
        return of_inputs, kernel_gradient(inputs, upstream, kernel.shape[:2])

    return _same(inputs, kernel), gradient


def _same(inputs: Tensor, kernel: Tensor) -> Tensor:
    return ops.depthwise_conv(inputs, kernel, padding="same", data_format="channels_last")


@keras.saving.register_keras_serializable(package="convnext")
class PatchConv(keras.layers.Conv2D):
    """Convolution whose kernel is as large as its stride, `(B, H, W, C)` to `(B, H // size, W // size, filters)`.

    Each output sees a patch of its own, so the convolution is one matrix product. With TensorFlow on a CPU it is
    computed as such, forward and backward: its convolution takes 1.2 to 4 times as long (sizes of atto and tiny,
    2 cores). On other devices and backends, and for images of unknown size, it is the framework's.

    Args:
        filters: number of output channels.
        size: side of a patch, in pixels or positions.
        kernel_initializer: of the kernel.
        **kwargs: `name`, `dtype` and `trainable` of the layer.
    """

    def __init__(
        self, filters: int, size: int, kernel_initializer: str | keras.Initializer = "glorot_uniform", **kwargs: Any
    ) -> None:
        check_layer_arguments(kwargs)
        self.size = size
        super().__init__(
            filters, size, strides=size, data_format="channels_last", kernel_initializer=kernel_initializer, **kwargs
        )

    def call(self, inputs: Tensor) -> Tensor:
        inputs = ops.cast(inputs, self.compute_dtype)  # integers are what Keras leaves as they are
        if not is_tensorflow_on_cpu("patch_products") or None in inputs.shape[1:3]:
            return super().call(inputs)
        size, channels = self.size, inputs.shape[-1]
        rows, columns = inputs.shape[1] // size, inputs.shape[2] // size
        patches = ops.reshape(inputs[:, : rows * size, : columns * size], (-1, rows, size, columns, size * channels))
        patches = ops.reshape(ops.transpose(patches, (0, 1, 3, 2, 4)), (-1, size * size * channels))
        kernel = ops.reshape(ops.cast(self.kernel, inputs.dtype), (-1, self.filters))
        outputs = ops.add(ops.matmul(patches, kernel), ops.cast(self.bias, inputs.dtype))
        return ops.reshape(outputs, (-1, rows, columns, self.filters))

    def get_config(self) -> dict[str, Any]:
        return {
            **keras.layers.Layer.get_config(self),
            "filters": self.filters,
            "size": self.size,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
