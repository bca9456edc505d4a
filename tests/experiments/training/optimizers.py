"""A plain optimizer for the training step."""

import contextlib

import keras

from experiments.optim.adamw import TakesSums


class SGD(TakesSums, keras.optimizers.SGD):
    """Gradient descent, as the training step takes it."""

    def skipping(self, skipped):
        return contextlib.nullcontext()  # the gradients of a skipped step are zero
