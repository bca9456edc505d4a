"""Mixup (https://arxiv.org/abs/1710.09412) and CutMix (https://arxiv.org/abs/1905.04899), one draw per batch."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np
import tensorflow as tf

from experiments.config import FinetuneConfig
from experiments.types import Batch


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Mixes a batch and its labels by Mixup or CutMix, and smooths the labels.

    Each image is mixed with the one at the opposite place of the batch, the first with the last. The middle image of an
    odd batch stays unmixed, and so does an image whose partner cannot be read.

    Args:
        num_classes: number of classes.
        mixup_alpha: parameter of the Beta distribution of an image's own share in Mixup; 0 for no Mixup.
        cutmix_alpha: the same for CutMix.
        mix_probability: probability that a batch is mixed.
        switch_probability: probability that a mixed batch uses CutMix, if both are on.
        label_smoothing: share of the target that is spread over all classes; with `label_sets`, the targets 0 and 1 of
            each class become `label_smoothing / 2` and `1 - label_smoothing / 2`.
        label_sets: see `Source`; None where a label is a class.
    """

    num_classes: int
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5
    label_smoothing: float = 0.0
    label_sets: np.ndarray | None = None

    @classmethod
    def of(cls, finetune: FinetuneConfig, num_classes: int, label_sets: np.ndarray | None = None) -> Self:
        """Returns the mixing that a `FinetuneConfig` describes."""
        names = {field.name for field in dataclasses.fields(cls)} - {"num_classes", "label_sets"}
        return cls(num_classes, label_sets=label_sets, **{name: getattr(finetune, name) for name in names})

    def __call__(self, batch: Batch, seed: tf.Tensor) -> Batch:
        """Mixes a batch.

        Args:
            batch: dictionary with `images` `(B, H, W, channels)` float32, `labels` `(B,)` and `weights` `(B,)`, 0 for
                an image that cannot be read.
            seed: stateless seed.

        Returns:
            The dictionary with mixed images, and `targets` `(B, num_classes)` float32, which without `label_sets` sum
            to 1.
        """
        targets = self._targets(batch["labels"])
        if not (self.mix_probability and (self.mixup_alpha or self.cutmix_alpha)):
            return {**batch, "targets": targets}
        images = batch["images"]
        share, own = self.draw_shares(images.shape[1:3], seed)
        places = tf.range(tf.shape(images)[0])
        partners = tf.where(batch["weights"][::-1] > 0.0, places[::-1], places)
        own = tf.repeat(own, images.shape[-1], axis=-1)  # otherwise it is repeated for each image, pixel by pixel
        return {
            **batch,
            "images": own * images + (1.0 - own) * tf.gather(images, partners),
            "targets": share * targets + (1.0 - share) * tf.gather(targets, partners),
        }

    def _targets(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns the smoothed targets of labels; those of label -1 are arbitrary, as its weight is 0."""
        if self.label_sets is None:
            targets, spread = tf.one_hot(labels, self.num_classes), self.label_smoothing / self.num_classes
        else:
            sets = tf.constant(self.label_sets, tf.float32)
            targets, spread = tf.gather(sets, tf.maximum(labels, 0)), self.label_smoothing / 2.0
        return targets * (1.0 - self.label_smoothing) + spread

    def draw_shares(self, size: Sequence[int], seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Draws the shares that the images of a batch keep of themselves.

        Args:
            size: height and width of the images.
            seed: stateless seed.

        Returns:
            `(share, own)`, both float32: the share of an image in its mixture, a scalar, and its share in each pixel,
            `(H, W, 1)`, whose mean is `share`.
        """
        choice_seed, mixup_seed, cutmix_seed, box_seed = (tf.random.fold_in(seed, draw) for draw in range(4))
        whether, which = tf.unstack(tf.random.stateless_uniform([2], choice_seed))

        def mixup() -> tuple[tf.Tensor, tf.Tensor]:
            share = tf.cast(_beta(self.mixup_alpha, mixup_seed), tf.float32)
            return share, tf.fill((*size, 1), share)

        def cutmix() -> tuple[tf.Tensor, tf.Tensor]:
            own = 1.0 - _box(size, _beta(self.cutmix_alpha, cutmix_seed), box_seed)
            return tf.reduce_mean(own), own

        def neither() -> tuple[tf.Tensor, tf.Tensor]:
            return tf.constant(1.0), tf.ones((*size, 1))

        if self.mixup_alpha and self.cutmix_alpha:
            mixed = lambda: tf.cond(which < self.switch_probability, cutmix, mixup)  # noqa: E731
        else:
            mixed = mixup if self.mixup_alpha else cutmix
        return tf.cond(whether < self.mix_probability, mixed, neither)


def _beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws from the Beta distribution with both parameters `alpha`: one gamma draw as a share of two."""
    draws = tf.random.stateless_gamma([2], seed, alpha=tf.constant(alpha, tf.float64), dtype=tf.float64)
    one, other = tf.unstack(draws)
    return tf.math.divide_no_nan(one, one + other)


def _box(size: Sequence[int], share: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns `(H, W, 1)` float32, 1 in the box that CutMix replaces, `1 - share` of an image before it is clipped."""
    inside = []
    for length, draw in zip(size, tf.unstack(tf.random.stateless_uniform([2], seed))):
        half = tf.cast(tf.sqrt(1.0 - share) * length, tf.int32) // 2
        centre = tf.cast(draw * length, tf.int32)
        places = tf.range(length)
        inside.append((places >= centre - half) & (places < centre + half))
    rows, columns = inside
    return tf.cast(rows[:, tf.newaxis] & columns, tf.float32)[..., tf.newaxis]
