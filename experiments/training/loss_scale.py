"""Dynamic loss scaling, which keeps float16 gradients from underflow and overflow."""

from collections.abc import Sequence

import tensorflow as tf

INITIAL, LARGEST = 2.0**15, 2.0**24
GROWTH_STEPS = 2000  # steps without an overflow after which the scale doubles


class LossScale:
    """The factor by which a loss is multiplied before float16 gradients are computed from it.

    An overflow halves it and skips the step; it doubles after `GROWTH_STEPS` steps without one. At a scale of 1 no step
    is skipped: values that are not finite then are not caused by the scale, and end the run as in float32. So do losses
    that stay not finite, which no scale changes, see `Divergence`.

    Construct it in the scope of the model's strategy. Every device has a copy of the state, and all copies are the
    same, because all devices test the same summed gradient.

    Attributes:
        scale: `tf.Variable`, float32, a power of two from 1 to `LARGEST`.
        finite_steps: `tf.Variable`, float32: steps since the last change of the scale.
        skipped_steps: `tf.Variable`, float32: steps of the run that were skipped.
    """

    def __init__(self) -> None:
        self.scale = tf.Variable(INITIAL, trainable=False, name="loss_scale")
        self.finite_steps = tf.Variable(0.0, trainable=False, name="finite_steps")
        self.skipped_steps = tf.Variable(0.0, trainable=False, name="skipped_steps")

    @property
    def variables(self) -> list[tf.Variable]:
        """The whole state, to be saved with a checkpoint."""
        return [self.scale, self.finite_steps, self.skipped_steps]

    def unscaled(self, gradients: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Divides gradients by the scale.

        Args:
            gradients: of the scaled loss, summed over all devices.

        Returns:
            `(gradients, skipped)`: of the loss itself, zero where the step is skipped; and 1 if it is, else 0.
        """
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
        taken = finite | (self.scale <= 1.0)
        unscaled = [tf.where(taken, gradient / self.scale, tf.zeros_like(gradient)) for gradient in gradients]
        return unscaled, 1.0 - tf.cast(taken, tf.float32)

    def update(self, skipped: tf.Tensor) -> None:
        """Updates the state after a step; `skipped` is what `unscaled` returned. Call it in cross-replica context."""
        finite_steps = (self.finite_steps + 1.0) * (1.0 - skipped)
        grows = finite_steps >= GROWTH_STEPS
        grown = tf.where(grows, tf.minimum(2.0 * self.scale, LARGEST), self.scale)
        scale = tf.where(skipped > 0.0, self.scale / 2.0, grown)
        self.scale.assign(scale)
        self.finite_steps.assign(tf.where(grows, 0.0, finite_steps))
        self.skipped_steps.assign_add(skipped)
