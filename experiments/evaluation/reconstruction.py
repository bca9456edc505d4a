"""The reconstruction loss of a masked autoencoder on images that it was not trained on."""

import numpy as np
import tensorflow as tf

from experiments.data.pipeline import evaluation_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import Split
from experiments.evaluation.devices import Devices
from experiments.types import Batch
from fcmae.masking import sample_visible
from fcmae.model import FCMAE


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

    def __init__(
        self,
        fcmae: FCMAE,
        split: Split,
        preprocessing: Preprocessing,
        batch_size: int,
        seed: int,
        devices: Devices | None = None,
    ) -> None:
        batch_size = min(batch_size, split.num_examples)
        self._num_batches = -(-split.num_examples // batch_size)
        self._batches = evaluation_batches(split, preprocessing, batch_size, num_patches=fcmae.num_patches, seed=seed)

        def image_losses(batch: Batch) -> tuple[tf.Tensor, ...]:
            visible = sample_visible(batch["noise"], fcmae.mask_ratio)
            losses = fcmae.image_losses(batch["images"], visible, training=False, valid=batch.get("valid"))
            return losses * batch["weights"], batch["weights"]

        self._losses = (devices or Devices()).mapping(image_losses)

    def __call__(self) -> float:
        outputs = self._losses(self._batches, self._num_batches)
        loss, count = np.sum([[np.sum(values, dtype="float64") for values in of_batch] for of_batch in outputs], axis=0)
        return float(loss / max(count, 1.0))
