"""The convolution of stem and downsampling, as a matrix product where that is faster."""

from typing import Any

import keras
from keras import ops

from convnext.layers import check_layer_arguments
from convnext.tf_cpu.devices import is_tensorflow_on_cpu
from convnext.types import Tensor


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
