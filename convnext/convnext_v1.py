"""ConvNeXt, the first version."""

from collections.abc import Sequence
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
        layer_scale_init: initial value of the layer scale of each block.

    Raises:
        ValueError: if the sizes of the stages do not match, or the input is smaller than one position of the
            last stage.
    """

    MODEL_VARIANTS = CONVNEXT_V1

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        *arguments: Any,
        layer_scale_init: float = 1e-6,
        **named_arguments: Any,
    ) -> None:
        self.layer_scale_init = layer_scale_init  # first, for the blocks are made in there
        super().__init__(depths, dims, *arguments, **named_arguments)

    def make_block(self, **arguments: Any) -> ConvNextBlock:
        return ConvNextV1Block(layer_scale_init=self.layer_scale_init, **arguments)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layer_scale_init": self.layer_scale_init}
