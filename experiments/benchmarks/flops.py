"""How many floating-point operations a training step of FCMAE takes, from the sizes of the model alone.

Counted are convolutions and matrix products, a multiplication and its addition as two operations; what works value by
value (LayerNorm, GELU, GRN, the loss, AdamW) is not. The backward pass takes each product twice more, once for the
gradient of the input and once for that of the kernel, except that nobody asks for the gradient of the images.
"""

import dataclasses

KERNEL_SIZE = 7  # of the depthwise convolutions


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of an FCMAE.

    Args:
        depths: number of blocks of each stage of the encoder.
        dims: number of channels of each stage.
        decoder_dim: channels of the decoder, of one block.
        stem_stride: side in pixels of the patches of the stem.
        channels: of the images.
        num_patches: number L of patches of an image.
        num_visible: number K of visible ones.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]
    decoder_dim: int
    stem_stride: int
    channels: int
    num_patches: int
    num_visible: int

    @property
    def patch_values(self):
        """Number of values of a patch."""
        return (self.stem_stride * 2 ** (len(self.dims) - 1)) ** 2 * self.channels


def step_flops(sizes, batch_size, execution, without=""):
    """Returns the operations of forward and backward pass of a step.

    Args:
        sizes: `Sizes`.
        batch_size: images of the step.
        execution: `pytorch` takes every product at every position; `dense` too, but predicts hidden patches alone.
            `sparse` takes the products that the loss depends on: the encoder works on visible positions alone, but for
            the depthwise convolutions, which need their neighbours and run over the whole grid.
        without: measure that is taken back; `hidden_only` has every patch predicted, the others change nothing.

    Returns:
        `{part: operations}` of the parts `stem`, `downsampling`, `depthwise`, `pointwise` and `decoder`.
    """
    backward = {"stem": 1}
    return {
        part: batch_size * operations * (1 + backward.get(part, 2))
        for part, operations in forward_flops(sizes, execution, without).items()
    }


def forward_flops(sizes, execution, without=""):
    """Returns the operations of the forward pass of one image, part by part as in `step_flops`."""
    patches = sizes.num_patches
    kept = sizes.num_visible if execution == "sparse" else patches
    predicted = patches if execution == "pytorch" or without == "hidden_only" else patches - sizes.num_visible
    parts = dict.fromkeys(("stem", "downsampling", "depthwise", "pointwise"), 0)
    side = 2 ** (len(sizes.dims) - 1)  # positions of the stage on the side of a patch
    parts["stem"] = kept * side**2 * _product(sizes.stem_stride**2 * sizes.channels, sizes.dims[0])
    for i, (depth, dim) in enumerate(zip(sizes.depths, sizes.dims)):
        if i:
            side //= 2
            parts["downsampling"] += kept * side**2 * _product(4 * sizes.dims[i - 1], dim)
        parts["depthwise"] += depth * patches * side**2 * _depthwise(dim)
        parts["pointwise"] += depth * kept * side**2 * _pointwise(dim)
    embedding = kept * _product(sizes.dims[-1], sizes.decoder_dim)
    # The statistics of its block are those of all patches; after them only what is predicted counts.
    block = patches * _depthwise(sizes.decoder_dim) + (patches + predicted) * _pointwise(sizes.decoder_dim) // 2
    prediction = predicted * _product(sizes.decoder_dim, sizes.patch_values)
    return {**parts, "decoder": embedding + block + prediction}


def _product(inputs, outputs):
    """A vector of `inputs` values times a matrix."""
    return 2 * inputs * outputs


def _depthwise(dim):
    """The depthwise convolution at one position."""
    return 2 * KERNEL_SIZE**2 * dim


def _pointwise(dim):
    """Expansion and projection of a block at one position."""
    return _product(dim, 4 * dim) + _product(4 * dim, dim)
