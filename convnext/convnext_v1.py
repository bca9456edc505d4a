"""ConvNeXt, the first version."""

from typing import Any

import keras

from convnext.backbone import ConvNeXt
from convnext.blocks import ConvNextBlock, ConvNextV1Block
from convnext.variants import CONVNEXT_V1


@keras.saving.register_keras_serializable(package="convnext")
class ConvNeXtV1(ConvNeXt):
    """ConvNeXt (https://arxiv.org/abs/2201.03545).

    Example:

        >>> model = ConvNeXtV1.from_variant("tiny", num_classes=10, input_shape=(224, 224, 3))
        >>> logits = model(images)                      # (B, 10)
        >>> features = model.extract_features(images)   # four maps, strides 4, 8, 16, 32

    Args:
        *arguments, **named_arguments: of `ConvNeXt`, whose errors it raises.
        layer_scale_init: initial value of the layer scale of each block.
    """

    version = 1
    MODEL_VARIANTS = CONVNEXT_V1

    def __init__(self, *arguments: Any, layer_scale_init: float = 1e-6, **named_arguments: Any) -> None:
        self.layer_scale_init = layer_scale_init  # first, for the blocks are made in there
        super().__init__(*arguments, **named_arguments)

    def make_block(self, **arguments: Any) -> ConvNextBlock:
        return ConvNextV1Block(layer_scale_init=self.layer_scale_init, **arguments)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer_scale_init": self.layer_scale_init}
