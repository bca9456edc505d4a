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
        rate = learning_rate if factor == 1.0 else learning_rate * factor
        if decay:
            self.assign(variable, variable * (1.0 - ops.cast(rate * decay, variable.dtype)))
        self.adam_step(gradient, variable, rate, index)

    def get_config(self):
        config = {**super().get_config(), "rate_factors": self._rate_factors, "decays": self._decays}
        del config["weight_decay"]  # each variable has its own
        return config

    def adam_step(self, gradient, variable, rate, index):
        """Does the step of Adam, for the `index`-th variable."""
        super().update_step(gradient, variable, rate)
