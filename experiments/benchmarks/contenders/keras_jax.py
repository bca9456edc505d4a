"""Keras on JAX: one compiled step, whose state stays on the device."""

import jax
import jax.numpy as jnp
import keras

from experiments.benchmarks.contenders.form import Contender, random_batch, random_matrices
from experiments.benchmarks.contenders.keras_model import example_losses, make_model_and_optimizer


class KerasJaxContender(Contender):
    """See `Contender`; `execution` is `sparse` or `dense`."""

    def __init__(self, settings, ratio, execution):
        model, optimizer = make_model_and_optimizer(settings, ratio, execution)
        self._batch = [jnp.asarray(array) for array in random_batch(settings, ratio)]
        # Weights, and the optimizer's moments and step. Donated, the arrays of the Keras variables end with step one.
        self._state = (
            [variable.value for variable in model.trainable_variables],
            [variable.value for variable in optimizer.variables],
        )
        self._step = jax.jit(_training_step(model, optimizer), donate_argnums=0)
        self._dtype = settings.precision
        self._device = jax.devices()[0]
        if self._device.platform != "cpu":
            self.device = self._device.device_kind

    def run(self, steps):
        for _ in range(steps):
            self._state, loss = self._step(self._state, *self._batch)
        jax.block_until_ready(self._state)
        return float(loss)

    def matrix_product(self, size):
        left, right = [jnp.asarray(matrix, self._dtype) for matrix in random_matrices(size)]

        def multiply(times):
            product = left
            for _ in range(times):
                product = jnp.matmul(product, right)
            jax.block_until_ready(product)

        return multiply

    def device_peak(self):
        statistics = self._device.memory_stats() if self._device.platform != "cpu" else None
        return statistics["peak_bytes_in_use"] if statistics else None


def _training_step(model, optimizer):
    """Returns the pure function `(state, images, visible)` to `(state, loss)`."""
    variables = model.trainable_variables

    def mean_loss(weights, images, visible):
        # What `stateless_call` does around `call`: the variables have the values that are handed in.
        with keras.StatelessScope(state_mapping=zip(variables, weights)):
            return jnp.mean(example_losses(model, images, visible))

    def step(state, images, visible):
        weights, optimizer_variables = state
        loss, gradients = jax.value_and_grad(mean_loss)(weights, images, visible)
        return optimizer.stateless_apply(optimizer_variables, gradients, weights), loss

    return step
