"""A plain optimizer for the training step."""

import keras

from experiments.optim.adamw import TakesSums


class SGD(TakesSums, keras.optimizers.SGD):
    """Gradient descent, as the training step takes it."""
