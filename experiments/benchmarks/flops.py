"""How many floating-point operations a training step of FCMAE takes, from the sizes of the model alone.

Counted are convolutions and matrix products, a multiplication and its addition as two operations; element-wise
operations (LayerNorm, GELU, GRN, the loss, AdamW) are not. The backward pass takes each product twice more, once for
the gradient of the input and once for that of the kernel, except that the gradient of the images is not needed.
"""

from experiments.config import Config
from fcmae.masking import num_visible

KERNEL_SIZE = 7  # of the depthwise convolutions


def step_flops(config: Config, execution: str, ablation: str = "") -> dict[str, int]:
    """Returns the operations of forward and backward pass of a step.

    Args:
        config: a `Config`.
        execution: `pytorch` takes every product at every position; `dense` too, but predicts only masked patches.
            `sparse` takes the products that the loss depends on: the encoder works only on visible positions, except
            for the depthwise convolutions, which need their neighbours and run over the whole grid.
        ablation: what the step goes without; `masked_only` has every patch predicted, the others change nothing.

    Returns:
        `{part: operations}` of the parts `stem`, `downsampling`, `depthwise`, `pointwise` and `decoder`.
    """
    backward = {"stem": 1}
    return {
        part: config.pretrain.batch_size * operations * (1 + backward.get(part, 2))
        for part, operations in forward_flops(config, execution, ablation).items()
    }


def forward_flops(config: Config, execution: str, ablation: str = "") -> dict[str, int]:
    """Returns the operations of the forward pass of one image, part by part as in `step_flops`."""
    (depths, dims), stride, decoder_dim = config.model.stages, config.model.stem_stride, config.model.decoder_dim
    patches, channels = config.num_patches, config.data.channels
    visible = num_visible(patches, config.pretrain.mask_ratio)
    kept = visible if execution == "sparse" else patches
    predicted = patches if execution == "pytorch" or ablation == "masked_only" else patches - visible
    parts = dict.fromkeys(("stem", "downsampling", "depthwise", "pointwise"), 0)
    side = 2 ** (len(dims) - 1)  # positions of the stage on the side of a patch
    parts["stem"] = kept * side**2 * _product(stride**2 * channels, dims[0])
    for i, (depth, dim) in enumerate(zip(depths, dims)):
        if i:
            side //= 2
            parts["downsampling"] += kept * side**2 * _product(4 * dims[i - 1], dim)
        parts["depthwise"] += depth * patches * side**2 * _depthwise(dim)
        parts["pointwise"] += depth * kept * side**2 * _pointwise(dim)
    embedding = kept * _product(dims[-1], decoder_dim)
    blocks = config.model.decoder_depth * patches * (_depthwise(decoder_dim) + _pointwise(decoder_dim))
    # The statistics of the last block are those of all patches; after them only what is predicted counts.
    blocks -= (patches - predicted) * _pointwise(decoder_dim) // 2
    prediction = predicted * _product(decoder_dim, config.model.total_stride**2 * channels)
    return {**parts, "decoder": embedding + blocks + prediction}


def _product(inputs: int, outputs: int) -> int:
    """A vector of `inputs` values times a matrix."""
    return 2 * inputs * outputs


def _depthwise(dim: int) -> int:
    """The depthwise convolution at one position."""
    return 2 * KERNEL_SIZE**2 * dim


def _pointwise(dim: int) -> int:
    """Expansion and projection of a block at one position."""
    return _product(dim, 4 * dim) + _product(4 * dim, dim)
