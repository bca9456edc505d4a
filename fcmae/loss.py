"""The reconstruction loss: mean squared error on hidden patches."""

from keras import ops

from convnext.types import Tensor

EPSILON = 1e-6  # added to the variance of a patch


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of each patch, `(B, L, 1)` each, from `(B, L, values)`.

    The variance is the unbiased one, as in the authors' code.
    """
    mean = ops.mean(patches, axis=-1, keepdims=True)
    variance = ops.sum(ops.square(patches - mean), axis=-1, keepdims=True) / (patches.shape[-1] - 1)
    return mean, ops.sqrt(variance + EPSILON)


def reconstruction_targets(patches: Tensor, normalize: bool = True) -> Tensor:
    """Returns what the decoder has to predict of patches, `(B, n, values)` float32.

    Args:
        patches: `(B, n, values)`, pixels as `masking.patchify` orders them.
        normalize: whether each patch is brought to mean 0 and variance 1.
    """
    patches = ops.cast(patches, "float32")
    if not normalize:
        return patches
    mean, std = patch_statistics(patches)
    return (patches - mean) / std


def reconstruction_loss(prediction: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error over the hidden patches of each image.

    Args:
        prediction: `(B, n, values)`, of the hidden patches.
        targets: `(B, n, values)`.

    Returns:
        `(B,)` float32. Every image hides the same number of patches, so the mean of these is the mean over all
        hidden patches of the batch.
    """
    return ops.mean(ops.square(ops.cast(prediction, "float32") - targets), axis=(1, 2))
