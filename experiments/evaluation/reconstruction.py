"""How well a masked autoencoder reconstructs images that it does not learn from."""

import numpy as np
import tensorflow as tf

from experiments.data.pipeline import evaluation_batches
from fcmae.masking import sample_visible


def fixed_masks(num_images, num_patches, mask_ratio, seed):
    """Returns masks that depend on the seed alone, `(num_images, num_patches)` float32, 1 where visible."""
    noise = tf.random.stateless_uniform((num_images, num_patches), seed=(seed, 0))
    return sample_visible(noise, mask_ratio)


class ReconstructionLoss:
    """The mean loss over the images of a split, under the same masks at every call.

    Calling the object evaluates the model as it is at that moment.

    Args:
        fcmae: an `FCMAE`.
        split: the examples.
        preparation: the `Preparation` of the images.
        batch_size: images at a time.
        seed: of the masks.
    """

    def __init__(self, fcmae, split, preparation, batch_size, seed):
        batch_size = min(batch_size, split.num_examples)
        self._batches = evaluation_batches(split, preparation, batch_size)
        visible = fixed_masks(batch_size, fcmae.num_patches, fcmae.mask_ratio, seed)

        @tf.function
        def sums(batch):
            losses = fcmae.image_losses(batch["images"], visible, training=False)
            return tf.reduce_sum(losses * batch["weights"]), tf.reduce_sum(batch["weights"])

        self._sums = sums

    def __call__(self):
        loss, count = np.array([self._sums(batch) for batch in self._batches], "float64").sum(axis=0)
        return float(loss / max(count, 1.0))
