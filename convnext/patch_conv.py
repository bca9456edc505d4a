"""The convolution of stem and downsampling, as a matrix product where that is faster."""

import keras
from keras import ops

from convnext.devices import is_tensorflow_on_cpu


@keras.saving.register_keras_serializable(package="convnext")
class PatchConv(keras.layers.Conv2D):
    """Convolution whose kernel is as large as its stride, `(B, H, W, C)` to `(B, H // size, W // size, filters)`.

    Each output sees a patch of its own, so the convolution is one matrix product. With TensorFlow on a CPU it is
    computed as such, forward and backward: its convolution takes 1.2 to 4 times as long (sizes of atto and tiny,
    2 cores). On other devices and backends it is the framework's.

    Args:
        filters: number of output channels.
        size: side of a patch, in pixels or positions.
    """

    def __init__(self, filters, size, **kwargs):
        super().__init__(filters, size, **{"strides": size, "data_format": "channels_last", **kwargs})

    def call(self, inputs):
        if not is_tensorflow_on_cpu() or None in inputs.shape[1:3]:
            return super().call(inputs)
        size, _, channels, filters = self.kernel.shape
        rows, columns = inputs.shape[1] // size, inputs.shape[2] // size
        inputs = inputs[:, : rows * size, : columns * size]
        patches = ops.reshape(inputs, (-1, rows, size, columns, size * channels))
        patches = ops.reshape(ops.transpose(patches, (0, 1, 3, 2, 4)), (-1, size * size * channels))
        outputs = ops.matmul(patches, ops.reshape(ops.cast(self.kernel, inputs.dtype), (-1, filters)))
        return ops.reshape(ops.add(outputs, ops.cast(self.bias, inputs.dtype)), (-1, rows, columns, filters))
