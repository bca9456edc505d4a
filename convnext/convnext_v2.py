"""ConvNeXt V2."""

from typing import Any

import keras

from convnext.backbone import ConvNeXt
from convnext.blocks import ConvNextBlock, ConvNextV2Block
from convnext.variants import CONVNEXT_V2


@keras.saving.register_keras_serializable(package="convnext")
class ConvNeXtV2(ConvNeXt):
    """ConvNeXt V2 (https://arxiv.org/abs/2301.00808); arguments and errors are those of `ConvNeXt`.

    Example:

        >>> model = ConvNeXtV2.from_variant("atto", num_classes=10, input_shape=(224, 224, 3))
        >>> logits = model(images)                      # (B, 10)
        >>> features = model.extract_features(images)   # four maps, strides 4, 8, 16, 32
    """

    version = 2
    MODEL_VARIANTS = CONVNEXT_V2

    def make_block(self, **arguments: Any) -> ConvNextBlock:
        return ConvNextV2Block(**arguments)
