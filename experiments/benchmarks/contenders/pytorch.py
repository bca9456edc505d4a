"""The masked dense autoencoder in PyTorch, compiled, with the fused AdamW."""

import contextlib

import torch
import torch._inductor.compile_fx  # the compiler, so that its memory counts as imported

from experiments.benchmarks.contenders.form import random_batch
from experiments.benchmarks.contenders.torch_device import TorchContender
from experiments.benchmarks.pytorch_masked_dense import MaskedDenseFCMAE


class PyTorchContender(TorchContender):
    """See `Contender`; `execution` is `pytorch`."""

    def __init__(self, settings, ratio, execution):
        del execution
        super().__init__(settings)
        torch.manual_seed(settings.seed)
        config = settings.config(ratio)
        model = MaskedDenseFCMAE(*config.model.stages, config.model.decoder_dim, config.model.stem_stride)
        self._model = model.to(self.torch_device, memory_format=torch.channels_last)
        self._optimizer = _make_adamw(self._model, config.pretrain)
        images, visible = random_batch(settings, ratio)
        # From (B, H, W, C) to (B, C, H, W) in the channels_last format: the values stay where they are.
        images = torch.tensor(images, device=self.torch_device).permute(0, 3, 1, 2)
        self._batch = (images, torch.tensor(visible, device=self.torch_device))
        self._loss = torch.compile(self._model)
        self._try_compiled_loss()

    def _try_compiled_loss(self):
        try:
            self._forward_and_backward()
        except Exception as error:  # It raises what the compiler raises, or that there is none.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.note = f"pytorch ran uncompiled: {reason}"
            self._loss = self._model
        self._optimizer.zero_grad(set_to_none=True)

    def _forward_and_backward(self):
        mixed = self.dtype != torch.float32
        with torch.autocast(self.torch_device.type, self.dtype) if mixed else contextlib.nullcontext():
            loss = self._loss(*self._batch)
        loss.backward()
        return loss

    def run(self, steps):
        for _ in range(steps):
            loss = self._forward_and_backward()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        self.wait()
        return float(loss.detach())


def _make_adamw(model, training):
    """Returns AdamW; what has one dimension (biases, normalizations, the mask token) does not decay."""
    decaying = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    spared = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": decaying, "weight_decay": training.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, training.base_learning_rate, (training.beta_1, training.beta_2), fused=True)
