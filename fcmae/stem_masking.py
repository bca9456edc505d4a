"""An ablation: a masked autoencoder whose encoder applies the mask only after the stem."""

import keras
from keras import ops

from convnext.types import Tensor
from fcmae.masking import patch_grid, upsample_mask
from fcmae.model import FCMAE


@keras.saving.register_keras_serializable(package="fcmae")
class StemMaskedFCMAE(FCMAE):
    """FCMAE with ordinary dense convolutions instead of sparse ones: a baseline of the paper, not its method.

    Masked patches are zero after the stem, and are treated like all other positions from there on: features flow into
    them and out again, and the statistics of GRN are over all positions. So the mask fades from block to block, and
    pretraining and fine-tuning see different patterns. In the paper (section 3) this lowers the fine-tuned top-1 from
    83.7% to 79.3%. Decoder, loss and arguments are those of `FCMAE`; `execution` has no effect, because every position
    is computed.
    """

    def encode(self, images: Tensor, visible: Tensor, training: bool | None = None) -> Tensor:
        """Returns the features of all patches, `(B, rows, columns, C)`; the decoder ignores those of masked patches."""
        backbone = self.backbone
        grid = patch_grid(images.shape[1], images.shape[2], self.patch_size)
        x = backbone.stem(ops.cast(images, backbone.compute_dtype))
        kept = upsample_mask(ops.cast(visible, x.dtype), grid, self.patch_size // backbone.stem_stride)
        x = ops.where(kept > 0, x, 0.0)  # a product would propagate NaN
        for stage in backbone.stages:
            x = stage(x, training=training)
        return x
