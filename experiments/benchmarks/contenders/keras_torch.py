"""Keras on PyTorch, as it comes: not compiled."""

import torch

from experiments.benchmarks.contenders.form import random_batch
from experiments.benchmarks.contenders.keras_model import example_losses, make_model_and_optimizer
from experiments.benchmarks.contenders.torch_device import TorchContender


class KerasTorchContender(TorchContender):
    """See `Contender`; `execution` is `sparse` or `dense`."""

    def __init__(self, settings, ratio, execution):
        super().__init__(settings)
        self._model, self._optimizer = make_model_and_optimizer(settings, ratio, execution)
        self._batch = [torch.tensor(array, device=self.torch_device) for array in random_batch(settings, ratio)]

    def run(self, steps):
        variables = self._model.trainable_variables
        for _ in range(steps):
            self._model.zero_grad()
            loss = example_losses(self._model, *self._batch).mean()
            loss.backward()
            with torch.no_grad():
                self._optimizer.apply([variable.value.grad for variable in variables], variables)
        self.wait()
        return float(loss)
