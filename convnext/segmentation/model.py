"""The model of semantic segmentation: an encoder, a decoder, and a class for each pixel."""

from typing import Any

import keras
from keras import ops

from convnext.backbone import ConvNeXt
from convnext.blocks import initializer
from convnext.composite import CompositeModel, attributes
from convnext.segmentation.decoders import DECODERS, ConvUnit
from convnext.segmentation.resizing import resize, size_of
from convnext.types import Shape, Tensor

AUXILIARY_DIM = 256


@keras.saving.register_keras_serializable(package="convnext")
class Segmenter(CompositeModel):
    """Semantic segmentation by a ConvNeXt and a decoder over the feature maps of its stages.

    Images of any size have logits of that size: internally they are padded with 0, the mean of normalized images, to a
    multiple of the total stride.

    Example:

        >>> backbone = ConvNeXtV2.from_variant("atto", input_shape=(None, None, 3), include_top=False)
        >>> model = Segmenter(backbone, num_classes=11, decoder="fpn")
        >>> logits = model(images)                     # (B, 480, 360, 3) to (B, 480, 360, 11)

    Args:
        backbone: a `ConvNeXtV2` or `ConvNeXtV1` without head.
        num_classes: number of classes.
        decoder: `upernet`, as in the ConvNeXt papers, or `fpn`, which is lighter.
        decoder_dim: channels of the decoder; the papers' UPerNet has 512.
        dropout_rate: of the channels of the decoder's map, before the logits.
        auxiliary: whether there is a second, small head on the second-to-last stage, for an auxiliary loss.

    Raises:
        ValueError: if the backbone has a head, or there is no such decoder.
    """

    def __init__(
        self,
        backbone: ConvNeXt,
        num_classes: int,
        decoder: str = "upernet",
        decoder_dim: int = 512,
        dropout_rate: float = 0.1,
        auxiliary: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if backbone.include_top:
            raise ValueError("Segmenter needs a backbone with include_top=False.")
        if decoder not in DECODERS:
            raise ValueError(f"decoder={decoder!r} is not one of {', '.join(DECODERS)}.")
        self.backbone = backbone
        self.num_classes = num_classes
        self.decoder_name = decoder
        self.decoder_dim = decoder_dim
        self.dropout_rate = dropout_rate
        self.auxiliary = auxiliary
        self.decoder = DECODERS[decoder](decoder_dim, backbone.epsilon, dtype=self.dtype_policy, name="decoder")
        # Whole channels, as in the papers' code.
        self.dropout = keras.layers.SpatialDropout2D(
            dropout_rate, data_format="channels_last", dtype=self.dtype_policy, name="dropout"
        )
        self.classifier = self._logits_layer("classifier")
        if auxiliary:
            self.auxiliary_conv = ConvUnit(AUXILIARY_DIM, dtype=self.dtype_policy, name="auxiliary_conv")
            self.auxiliary_classifier = self._logits_layer("auxiliary_classifier")
        self.build((None, *backbone.image_shape))

    def _logits_layer(self, name: str) -> keras.layers.Layer:
        # Logits are float32 under every policy: a softmax over bfloat16 loses the small classes.
        return keras.layers.Conv2D(
            self.num_classes,
            1,
            data_format="channels_last",
            kernel_initializer=initializer(),
            dtype="float32",
            name=name,
        )

    @property
    def total_stride(self) -> int:
        """Pixels of the image on the side of one position of the encoder's last stage."""
        return self.backbone.total_stride

    @property
    def image_shape(self) -> Shape:
        """`(H, W, channels)` of the encoder; the model takes images of any height and width."""
        return self.backbone.image_shape

    def build(self, input_shape: Shape) -> None:
        shapes = [(None, None, None, dim) for dim in self.backbone.dims]
        self.decoder.build(shapes)
        self.classifier.build((None, None, None, self.decoder_dim))
        if self.auxiliary:
            self.auxiliary_conv.build(shapes[self._auxiliary_stage])
            self.auxiliary_classifier.build((None, None, None, AUXILIARY_DIM))
        self.input_spec = self.backbone.input_spec
        self.built = True

    @property
    def _auxiliary_stage(self) -> int:
        return max(len(self.backbone.dims) - 2, 0)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return *input_shape[:-1], self.num_classes

    def compute_output_spec(self, images: Tensor, training: bool | None = None) -> keras.KerasTensor:
        return keras.KerasTensor(self.compute_output_shape(images.shape), dtype="float32")

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        """Returns the logits of each pixel.

        Args:
            images: `(B, H, W, channels)`, normalized as in training; any height and width from 1 on.
            training: whether stochastic depth and dropout are active.

        Returns:
            `(B, H, W, num_classes)` float32.
        """
        return self._logits(images, self._features(images, training), training)

    def call_with_auxiliary(
        self, images: Tensor, training: bool | None = None, frozen_encoder: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Returns the logits of each pixel, and those of the auxiliary head, both `(B, H, W, num_classes)` float32.

        Args:
            images, training: see `call`.
            frozen_encoder: whether the encoder is in inference mode, and no gradient goes through it.
        """
        features = self._features(images, training and not frozen_encoder)
        if frozen_encoder:
            features = [ops.stop_gradient(x) for x in features]
        logits = self._logits(images, features, training)
        if not self.auxiliary:
            return logits, logits
        x = self.dropout(self.auxiliary_conv(features[self._auxiliary_stage]), training=training)
        return logits, self._to_pixels(self.auxiliary_classifier(x), images)

    def _features(self, images: Tensor, training: bool | None) -> list[Tensor]:
        height, width = self._padded_size(images)
        most = self.total_stride - 1
        padded = ops.pad(images, [[0, 0], [0, most], [0, most], [0, 0]])[:, :height, :width]
        return self.backbone.extract_features(padded, training=training)

    def _logits(self, images: Tensor, features: list[Tensor], training: bool | None) -> Tensor:
        x = self.dropout(self.decoder(features), training=training)
        return self._to_pixels(self.classifier(x), images)

    def _to_pixels(self, x: Tensor, images: Tensor) -> Tensor:
        """Resizes a map to the padded images, and cuts off what was padded."""
        height, width = size_of(images)
        return resize(x, *self._padded_size(images))[:, :height, :width]

    def _padded_size(self, images: Tensor) -> tuple[Tensor, Tensor]:
        stride = self.total_stride  # no negative numbers, which ONNX divides otherwise
        height, width = ((side + stride - 1) // stride * stride for side in size_of(images))
        return height, width

    def get_config(self) -> dict[str, Any]:
        parts = {"backbone": keras.saving.serialize_keras_object(self.backbone), "decoder": self.decoder_name}
        own = attributes(self, "num_classes", "decoder_dim", "dropout_rate", "auxiliary")
        return {**super().get_config(), **parts, **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        backbone = keras.saving.deserialize_keras_object(config["backbone"])
        return super().from_config({**config, "backbone": backbone})
