"""AdamW with a rate and a decay of each variable's own."""

import keras
from keras import ops


class LayerwiseAdamW(keras.optimizers.Adam):
    """AdamW whose learning rate is multiplied by a factor for each variable.

    As in PyTorch, where a group of parameters has a rate of its own, the factor acts on both the step and the decoupled
    decay. `keras.optimizers.AdamW` has one rate for all.

    Args:
        learning_rate: rate or schedule.
        rate_factors: factor of each variable, in the order in which the optimizer is built.
        decays: weight decay of each variable, 0 for none.
        **arguments: of `keras.optimizers.Adam`.
    """

    def __init__(self, learning_rate, rate_factors, decays, **arguments):
        super().__init__(learning_rate, **arguments)
        self._rate_factors = tuple(rate_factors)
        self._decays = tuple(decays)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        factor, decay = self._rate_factors[index], self._decays[index]
        if decay:
            # The rate is read once more, as Keras's AdamW does: TensorFlow would reorder a product of the one that the
            # step takes, and round it otherwise.
            rate = ops.cast(_scaled(self.learning_rate, factor), variable.dtype)
            self.assign_sub(variable, variable * decay * rate)
        self.adam_step(gradient, variable, _scaled(learning_rate, factor), index)

    def adam_step(self, gradient, variable, rate, index):
        """Does the step of Adam, for the `index`-th variable."""
        super().update_step(gradient, variable, rate)


def _scaled(rate, factor):
    return rate if factor == 1.0 else rate * factor
