"""The reconstruction loss: mean squared error on hidden patches."""

from keras import ops

from fcmae.masking import patchify

EPSILON = 1e-6  # added to the variance of a patch


def patch_statistics(patches):
    """Returns mean and standard deviation of each patch, `(B, L, 1)` each, from `(B, L, values)`.

    The variance is the unbiased one, as in the authors' code.
    """
    mean = ops.mean(patches, axis=-1, keepdims=True)
    variance = ops.sum(ops.square(patches - mean), axis=-1, keepdims=True) / (patches.shape[-1] - 1)
    return mean, ops.sqrt(variance + EPSILON)


def reconstruction_targets(images, patch_size, normalize=True):
    """Returns what the decoder has to predict, `(B, L, patch_size * patch_size * channels)` float32.

    Args:
        images: `(B, H, W, channels)`.
        patch_size: side of a patch in pixels.
        normalize: whether each patch is brought to mean 0 and variance 1.
    """
    patches = patchify(ops.cast(images, "float32"), patch_size)
    if not normalize:
        return patches
    mean, deviation = patch_statistics(patches)
    return (patches - mean) / deviation


def reconstruction_loss(prediction, targets, visible):
    """Mean squared error of each patch, averaged over the hidden patches of each image.

    Args:
        prediction: `(B, L, values)`.
        targets: `(B, L, values)`.
        visible: `(B, L)`; visible patches do not enter.

    Returns:
        `(B,)` float32. Every image hides the same number of patches, so the mean of these is the mean over all
        hidden patches of the batch.
    """
    error = ops.mean(ops.square(ops.cast(prediction, "float32") - targets), axis=-1)
    hidden = 1.0 - ops.cast(visible, "float32")
    return ops.sum(error * hidden, axis=-1) / ops.sum(hidden, axis=-1)
