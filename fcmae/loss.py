"""The reconstruction loss: mean squared error on masked patches."""

from keras import ops

from convnext.types import Tensor

EPSILON = 1e-6  # added to the variance of a patch


def patch_statistics(patches: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of each patch, `(B, L, 1)` each, from `(B, L, values)`.

    The variance is the unbiased one, as in the authors' code. With `valid`, of the shape of the patches, only values
    where it is 1 count; the others may be anything but NaN.
    """
    if valid is not None:
        count = ops.sum(valid, axis=-1, keepdims=True)
        mean = ops.sum(patches * valid, axis=-1, keepdims=True) / ops.maximum(count, 1.0)
        squares = ops.sum(ops.square(patches - mean) * valid, axis=-1, keepdims=True)
        return mean, ops.sqrt(squares / ops.maximum(count - 1.0, 1.0) + EPSILON)
    mean = ops.mean(patches, axis=-1, keepdims=True)
    variance = ops.sum(ops.square(patches - mean), axis=-1, keepdims=True) / (patches.shape[-1] - 1)
    return mean, ops.sqrt(variance + EPSILON)


def reconstruction_targets(patches: Tensor, normalize: bool = True, valid: Tensor | None = None) -> Tensor:
    """Returns the targets of the decoder for patches, `(B, n, values)` float32.

    Args:
        patches: `(B, n, values)`, pixels as `masking.patchify` orders them.
        normalize: whether each patch is normalized to mean 0 and variance 1.
        valid: `(B, n, values)` float32, 1 where there is data and 0 elsewhere; None where all pixels have data.
    """
    patches = ops.cast(patches, "float32")
    if not normalize:
        return patches
    mean, std = patch_statistics(patches, valid)
    return (patches - mean) / std


def reconstruction_loss(prediction: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean squared error over the masked patches of each image.

    Args:
        prediction: `(B, n, values)`, of the masked patches.
        targets: `(B, n, values)`.
        valid: `(B, n, values)` float32, see `reconstruction_targets`; the mean is over the values that have data.

    Returns:
        `(B,)` float32. Every image has the same number of masked patches, so if all pixels have data, the mean of these
        losses is the mean over all masked patches of the batch. An image whose masked patches have no data has a loss
        of 0.
    """
    if valid is not None:
        errors = ops.square(ops.cast(prediction, "float32") - targets) * valid
        return ops.sum(errors, axis=(1, 2)) / ops.maximum(ops.sum(valid, axis=(1, 2)), 1.0)
    return ops.mean(ops.square(ops.cast(prediction, "float32") - targets), axis=(1, 2))
