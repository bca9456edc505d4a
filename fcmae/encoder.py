"""The masked encoder: a backbone in which masked positions enter no convolution and no statistic.

Depthwise convolutions see zeros at masked positions, the statistics of GRN are over the visible positions of one image,
and masked positions stay zero, so their content never reaches a visible one. The stem and the downsampling layers never
cross the border of a patch.

Two executions compute this same function with the same layers:

- `dense` computes every position and puts zeros at the masked ones. It is easier to read, and the other is tested
  against it.
- `sparse` keeps only the visible positions, and places them on the image grid only for the depthwise convolutions.
"""

import functools

from keras import ops

from convnext.backbone import ConvNeXt
from convnext.blocks import ConvNextBlock
from convnext.remat import checkpointed
from convnext.stages import Stage
from convnext.types import Tensor
from fcmae.layout import StageLayout, gather_patches, nan_unless_exact, rank_patches, split_patches
from fcmae.masking import patch_grid, patchify, upsample_mask

EXECUTIONS = ("sparse", "dense")


def encode_dense(backbone: ConvNeXt, images: Tensor, visible: Tensor, training: bool | None = None) -> Tensor:
    """Applies the backbone to the visible patches of the images, computing every position.

    Args:
        backbone: a `ConvNeXtV2`.
        images: `(B, H, W, channels)`, height and width multiples of the backbone's total stride.
        visible: `(B, L)`, 1 for visible patches and 0 for masked ones.
        training: whether stochastic depth is active.

    Returns:
        `(B, rows, columns, C)`, one position per patch, zero at masked patches.

    Raises:
        ValueError: if the patches do not tile the images.
    """
    grid = patch_grid(images.shape[1], images.shape[2], backbone.total_stride)
    factor = backbone.total_stride // backbone.stem_stride
    x = backbone.stem(images)
    for stage in backbone.stages:
        if stage.downsampling is not None:
            x = stage.downsampling(x)
            factor //= 2
        stage_visible = upsample_mask(visible, grid, factor)
        x = ops.where(stage_visible > 0, x, 0.0)  # a product would propagate NaN
        for block in stage.blocks:
            apply_block = functools.partial(block.__call__, visible=stage_visible, training=training)
            x = checkpointed(["stage", "block"], [block], apply_block, x, training)
    return x


def encode_sparse(
    backbone: ConvNeXt, images: Tensor, visible: Tensor, num_visible: int, training: bool | None = None
) -> Tensor:
    """Applies the backbone to the visible patches of the images, computing only those.

    Args:
        backbone: a `ConvNeXtV2`.
        images: `(B, H, W, channels)`, height and width multiples of the backbone's total stride.
        visible: `(B, L)`, 1 for visible patches and 0 for masked ones, exactly `num_visible` ones in each row.
        num_visible: number K of visible patches of each image.
        training: whether stochastic depth is active.

    Returns:
        `(B, rows, columns, C)`, one position per patch, zero at masked patches; NaN for an image with another number of
        visible patches.

    Raises:
        ValueError: if the patches do not tile the images.
    """
    patch_size = backbone.total_stride
    grid = patch_grid(images.shape[1], images.shape[2], patch_size)
    indices, _ = split_patches(visible, num_visible)
    ranks = rank_patches(visible, num_visible)
    patches = gather_patches(patchify(images, patch_size), indices)
    factor = patch_size // backbone.stem_stride
    # To the stem and the downsampling layers, each visible patch is an image of its own: (B * K, r, r, C).
    x = backbone.stem(ops.reshape(patches, (-1, patch_size, patch_size, images.shape[-1])))
    for i, stage in enumerate(backbone.stages):
        layout = StageLayout(indices, ranks, grid, factor // 2**i)
        apply = functools.partial(_apply_sparse_stage, stage=stage, layout=layout, training=training)
        x = checkpointed(["stage"], [stage], apply, x, training)
    rows = ops.reshape(x, (-1, num_visible, x.shape[-1]))
    return nan_unless_exact(layout.to_grid(rows), visible, num_visible)


def _apply_sparse_stage(x: Tensor, stage: Stage, layout: StageLayout, training: bool | None) -> Tensor:
    """Applies a stage to visible patches, `(B * K, r, r, C)`."""
    if stage.downsampling is not None:
        x = stage.downsampling(x)

    def apply_block(rows: Tensor, block: ConvNextBlock) -> Tensor:
        convolved = layout.to_rows(block.depthwise_conv(layout.to_grid(rows)))
        return rows + block.mix_channels(convolved, training=training)

    _, height, width, channels = x.shape
    rows = ops.reshape(x, (-1, layout.num_rows, channels))
    for block in stage.blocks:
        rows = checkpointed(["block"], [block], functools.partial(apply_block, block=block), rows, training)
    return ops.reshape(rows, (-1, height, width, channels))
