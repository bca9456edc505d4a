"""ConvNeXt V2."""

from typing import Any

import keras

from convnext.backbone import ConvNeXt
from convnext.blocks import ConvNextBlock, ConvNextV2Block
from convnext.variants import CONVNEXT_V2


@keras.saving.register_keras_serializable(package="convnext")
class ConvNeXtV2(ConvNeXt):
    """ConvNeXt V2 (https://arxiv.org/abs/2301.00808).

    Example:

        >>> model = ConvNeXtV2.from_variant("atto", num_classes=10, input_shape=(224, 224, 3))
        >>> logits = model(images)                      # (B, 10)
        >>> features = model.extract_features(images)   # four maps, strides 4, 8, 16, 32

    Args:
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
        num_classes: number of logits of the head.
        input_shape: `(H, W, channels)`; H and W may be None.
        include_top: whether the model ends in the classification head.
        stem_stride: side in pixels of the patches that the stem embeds.
        kernel_size: of the depthwise convolutions.
        drop_path_rate: stochastic depth rate of the last block; rates rise linearly from 0 over all blocks.
        dropout_rate: of the pooled features, before the logits.
        epsilon, activation, output_stride: see `ConvNeXt`.

    Raises:
        ValueError: if the sizes of the stages do not match, or the input is smaller than one position of the
            last stage.
    """

    MODEL_VARIANTS = CONVNEXT_V2

    def make_block(self, **arguments: Any) -> ConvNextBlock:
        return ConvNextV2Block(**arguments)
