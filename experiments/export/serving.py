"""The function that an exported model computes."""

import dataclasses
import functools

import keras
import tensorflow as tf
from keras import ops

from convnext.backbone import pool
from convnext.tf_cpu.devices import portable

OUTPUTS = ("logits", "probabilities", "features")
INPUT_DTYPES = ("uint8", "float32")
IMAGES = "images"  # name of the input


@dataclasses.dataclass(frozen=True)
class Serving:
    """What is exported of a model: from a batch of images to one of its outputs.

    Args:
        model: a `ConvNeXt`; one without head has features alone.
        outputs: one of `OUTPUTS`; features are those of the last stage, averaged over the positions.
        size: `(height, width)` of the images; None for free sizes.
        normalization: `(mean, std)` of the channels, of images in [0, 255]; None for images that come normalized.
        input_dtype: of the images.
    """

    model: keras.Model
    outputs: str
    size: tuple[int | None, int | None]
    normalization: tuple | None = None
    input_dtype: str = "float32"

    @property
    def shape(self):
        """Shape of the images, `(None, H, W, channels)`."""
        return (None, *self.size, self.model.image_shape[-1])

    @property
    def output_size(self):
        """Number of values for each image."""
        return self.model.dims[-1] if self.outputs == "features" else self.model.num_classes

    @functools.cached_property
    def function(self):
        """The `tf.function` to export, from images to `{name of the output: (B, values) float32}`."""

        def serve(images):
            images = ops.cast(images, "float32")
            if self.normalization:
                mean, std = self.normalization
                images = (images / 255.0 - tf.constant(mean)) / tf.constant(std)
            with portable():
                return {self.outputs: self.apply(images)}

        signature = [tf.TensorSpec(self.shape, self.input_dtype, name=IMAGES)]
        return tf.function(serve, input_signature=signature, autograph=False)

    def apply(self, images):
        """The output of the Keras model for normalized images, `(B, values)` float32."""
        if self.outputs == "features":
            return pool(self.model.extract_features(images, training=False)[-1])
        logits = self.model(images, training=False)
        return ops.softmax(logits) if self.outputs == "probabilities" else logits
