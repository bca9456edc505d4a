"""Pictures of the masked input and of its reconstruction."""

from collections.abc import Sequence

import numpy as np
from keras import ops

from convnext.types import Tensor
from fcmae.loss import patch_statistics
from fcmae.masking import patchify, unpatchify, upsample_mask
from fcmae.model import FCMAE

HIDDEN_GREY = 0.5


def reconstruction_panels(
    model: FCMAE,
    images: Tensor,
    visible: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    valid: Tensor | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the three pictures that show a reconstruction.

    Args:
        model: an `FCMAE`.
        images: `(B, H, W, channels)`, normalized by `mean` and `std`.
        visible: `(B, L)`, 1 for visible patches and 0 for masked ones.
        mean: mean of each channel, in [0, 1].
        std: standard deviation of each channel.
        valid: of the shape of the images, 1 where there is data and 0 elsewhere, where they hold 0; None for data
            everywhere.

    Returns:
        `(original, masked, reconstruction)`, NumPy `(B, H, W, channels)` in [0, 1]. Masked patches are grey in
        `masked`; in `reconstruction` they hold the prediction, with the statistics of the target patch undone
        where the model normalizes its targets, and visible ones hold the original.
    """
    prediction = ops.cast(model.predict_patches(images, visible, training=False), "float32")
    if model.normalize_targets:
        known = None if valid is None else patchify(ops.cast(valid, "float32"), model.patch_size)
        patch_mean, patch_std = patch_statistics(patchify(ops.cast(images, "float32"), model.patch_size), known)
        prediction = prediction * patch_std + patch_mean
    predicted = _to_pixels(unpatchify(prediction, model.grid, model.patch_size), mean, std)
    original = _to_pixels(images, mean, std)
    kept = ops.convert_to_numpy(upsample_mask(visible, model.grid, model.patch_size))
    masked = original * kept + HIDDEN_GREY * (1.0 - kept)
    reconstruction = original * kept + predicted * (1.0 - kept)
    return original, masked, reconstruction


def _to_pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    pixels = np.asarray(ops.convert_to_numpy(images), "float32") * np.asarray(std, "float32") + np.asarray(
        mean, "float32"
    )
    return np.clip(pixels, 0.0, 1.0)
