"""ConvNeXt V2."""

import keras

from convnext.backbone import ConvNeXt
from convnext.blocks import ConvNextV2Block
from convnext.variants import CONVNEXT_V2
from convnext.weights.loader import load_pretrained

__all__ = ["ConvNeXtV2", "ConvNextV2Block", "create_convnext_v2"]


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

    Raises:
        ValueError: if the sizes of the stages do not match, or the input is smaller than one position of the
            last stage.
    """

    MODEL_VARIANTS = CONVNEXT_V2

    def make_block(self, dim, drop_path_rate, name):
        return ConvNextV2Block(dim, self.kernel_size, drop_path_rate, dtype=self.dtype_policy, name=name)


def create_convnext_v2(
    variant,
    num_classes=1000,
    input_shape=(None, None, 3),
    include_top=True,
    pretrained=None,
    drop_path_rate=0.0,
    pretrained_stem="load",
    **overrides,
):
    """Creates a ConvNeXt V2, with pretrained weights where asked for.

    Args:
        variant: a name in `ConvNeXtV2.MODEL_VARIANTS`.
        num_classes: number of logits.
        input_shape: `(H, W, channels)`; H and W may be None.
        include_top: whether the model ends in the classification head.
        pretrained: a run's workdir, or a file of Keras, of the authors' code, of timm or of Transformers (see
            `load_pretrained`), or None for random weights.
        drop_path_rate: stochastic depth rate of the last block, in [0, 1).
        pretrained_stem: `load`, `average` or `leave_out`, for images of another number of channels than those of
            the pretrained weights (see `load_pretrained`).
        **overrides: any other argument of `ConvNeXtV2`.

    Returns:
        A `ConvNeXtV2`.

    Raises:
        ValueError: if there is no such variant.
        PretrainedError: if the weights do not fit the model.
    """
    model = ConvNeXtV2.from_variant(
        variant,
        num_classes=num_classes,
        input_shape=input_shape,
        include_top=include_top,
        drop_path_rate=drop_path_rate,
        **overrides,
    )
    if pretrained is not None:
        load_pretrained(model, pretrained, pretrained_stem).log()
    return model
