"""The light decoder: from the encoder's visible features to the pixels of every patch."""

import functools
from typing import Any

import keras
from keras import ops

from convnext.blocks import ConvNextV2Block, dense, initializer
from convnext.composite import Composite
from convnext.remat import checkpointed
from convnext.types import Shape, Tensor
from fcmae.layout import gather_patches


@keras.saving.register_keras_serializable(package="fcmae")
class Decoder(Composite, keras.layers.Layer):
    """Decoder of FCMAE (ConvNeXt V2, section 3.2): projection, mask token, ConvNeXt V2 blocks, prediction.

    Args:
        dim: number of channels of the decoder.
        depth: number of blocks.
        patch_values: number of values of a patch, `patch_size * patch_size * channels`.
    """

    def __init__(self, dim: int, depth: int, patch_values: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.depth = depth
        self.patch_values = patch_values
        # A convolution of kernel 1x1 is a dense layer on the channels.
        self.embedding = dense(dim, self.dtype_policy, "embedding")
        self.blocks = [ConvNextV2Block(dim, dtype=self.dtype_policy, name=f"block_{i}") for i in range(depth)]
        self.prediction = dense(patch_values, self.dtype_policy, "prediction")

    def build(self, latent_shape: Shape) -> None:
        self.mask_token = self.add_weight(name="mask_token", shape=(self.dim,), initializer=initializer())
        self.embedding.build(latent_shape)
        for block in self.blocks:
            block.build((None, None, None, self.dim))
        self.prediction.build((None, None, self.dim))
        self.input_spec = self.embedding.input_spec

    def compute_output_shape(
        self, latent_shape: Shape, visible_shape: Shape | None = None, chosen_shape: Shape | None = None
    ) -> Shape:
        batch, rows, columns, _ = latent_shape
        patches = rows * columns if chosen_shape is None else chosen_shape[1]
        return batch, patches, self.patch_values

    def call(
        self, latent: Tensor, visible: Tensor, chosen: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        """Predicts all patches, or only the chosen ones.

        Args:
            latent: `(B, rows, columns, C)`, the encoder's output.
            visible: `(B, L)`, 1 for visible patches and 0 for masked ones.
            chosen: `(B, n)` int32, indices of the patches to predict, or None for all L.
            training: whether the model trains.

        Returns:
            `(B, L, patch_values)` or `(B, n, patch_values)`: the values of each patch in the order of
            `masking.patchify`.
        """
        _, rows, columns, _ = latent.shape
        x = self.embedding(latent)
        kept = ops.cast(ops.reshape(visible, (-1, rows, columns, 1)), x.dtype)
        x = x * kept + ops.cast(self.mask_token, x.dtype) * (1.0 - kept)
        apply = functools.partial(self._apply_blocks, chosen=chosen, training=training)
        return self.prediction(checkpointed(["stage", "block"], self.blocks, apply, x, training))

    def _apply_blocks(self, x: Tensor, chosen: Tensor | None, training: bool | None) -> Tensor:
        """Returns the output of the blocks for the chosen patches, `(B, n, dim)`, or for all."""
        if chosen is None or not self.blocks:
            for block in self.blocks:
                x = block(x, training=training)
            x = _as_patches(x)
            return x if chosen is None else gather_patches(x, chosen)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x, training=training)
        # The statistics of the last block are over all patches; after them, patches do not interact.
        expanded = last.expand(_as_patches(last.depthwise_conv(x)), training=training)
        branch = last.project(gather_patches(expanded, chosen), training=training)
        return gather_patches(_as_patches(x), chosen) + branch

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dim": self.dim, "depth": self.depth, "patch_values": self.patch_values}


def _as_patches(feature_map: Tensor) -> Tensor:
    """`(B, rows, columns, C)` to `(B, L, C)`."""
    _, rows, columns, channels = feature_map.shape
    return ops.reshape(feature_map, (-1, rows * columns, channels))
