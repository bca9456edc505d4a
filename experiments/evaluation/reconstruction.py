"""The reconstruction loss of a masked autoencoder on images that it was not trained on."""

import numpy as np

from experiments.data.pipeline import evaluation_batches
from experiments.evaluation.devices import Devices
from fcmae.masking import sample_visible


class ReconstructionLoss:
    """The mean loss over the images of a split. The mask of the k-th image is a function of (seed, k) alone.

    Calling the object evaluates the current weights of the model.

    Args:
        fcmae: an `FCMAE`.
        split: the examples.
        preprocessing: the `Preprocessing` of the images.
        batch_size: images at a time.
        seed: of the masks.
        devices: the `Devices` that do the work; None for one.
    """

    def __init__(self, fcmae, split, preprocessing, batch_size, seed, devices=None):
        batch_size = min(batch_size, split.num_examples)
        self._num_batches = -(-split.num_examples // batch_size)
        self._batches = evaluation_batches(split, preprocessing, batch_size, num_patches=fcmae.num_patches, seed=seed)

        def image_losses(batch):
            visible = sample_visible(batch["noise"], fcmae.mask_ratio)
            losses = fcmae.image_losses(batch["images"], visible, training=False, valid=batch.get("valid"))
            return losses * batch["weights"], batch["weights"]

        self._losses = (devices or Devices()).mapping(image_losses)

    def __call__(self):
        outputs = self._losses(self._batches, self._num_batches)
        loss, count = np.sum([[np.sum(values, dtype="float64") for values in of_batch] for of_batch in outputs], axis=0)
        return float(loss / max(count, 1.0))
