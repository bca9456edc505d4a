"""The masked encoder: a backbone for which hidden positions do not exist.

Depthwise convolutions see zeros at hidden positions, the statistics of GRN run over the visible positions of
one image, and hidden positions stay zero, so nothing of them reaches a visible one. Stem and downsampling
never cross the border of a patch.

This is the dense execution: every position is computed and the hidden ones are multiplied by zero. It costs as
much as no masking at all, and is what every faster execution has to equal.
"""

from keras import ops

from fcmae.masking import patch_grid, raise_to_resolution


def encode(backbone, images, visible, training=None):
    """Applies the backbone to the visible patches of the images.

    Args:
        backbone: a `ConvNeXtV2`.
        images: `(B, H, W, channels)`, height and width multiples of the backbone's total stride.
        visible: `(B, L)`, 1 for visible patches and 0 for hidden ones.
        training: whether stochastic depth is at work.

    Returns:
        `(B, rows, columns, C)`, one position a patch, zero at hidden patches.

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
        stage_visible = raise_to_resolution(visible, grid, factor)
        x = ops.where(stage_visible > 0, x, 0.0)  # a product would let NaN pass
        for block in stage.blocks:
            x = block(x, visible=stage_visible, training=training)
    return x
