"""How well a masked autoencoder reconstructs images that it does not learn from."""

import numpy as np
import tensorflow as tf

from experiments.data.pipeline import evaluation_batches
from fcmae.masking import sample_visible


class ReconstructionLoss:
    """The mean loss over the images of a split. The mask of the k-th image is a function of (seed, k) alone.

    Calling the object evaluates the model as it is at that moment.

    Args:
        fcmae: an `FCMAE`.
        split: the examples.
        preprocessing: the `Preprocessing` of the images.
        batch_size: images at a time.
        seed: of the masks.
    """

    def __init__(self, fcmae, split, preprocessing, batch_size, seed):
        batch_size = min(batch_size, split.num_examples)
        self._batches = evaluation_batches(split, preprocessing, batch_size, num_patches=fcmae.num_patches, seed=seed)

        @tf.function
        def sums(batch):
            visible = sample_visible(batch["noise"], fcmae.mask_ratio)
            losses = fcmae.image_losses(batch["images"], visible, training=False, valid=batch.get("valid"))
            return tf.reduce_sum(losses * batch["weights"]), tf.reduce_sum(batch["weights"])

        self._sums = sums

    def __call__(self):
        loss, count = np.array([self._sums(batch) for batch in self._batches], "float64").sum(axis=0)
        return float(loss / max(count, 1.0))
