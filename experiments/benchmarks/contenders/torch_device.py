"""What contenders on PyTorch share: their device, its memory, and its matrix product."""

import torch

from experiments.benchmarks.contenders.form import Contender, random_matrices


class TorchContender(Contender):
    """A `Contender` on the GPU if there is one, else on the CPU.

    Args:
        settings: `StepSettings`.
    """

    def __init__(self, settings):
        self.torch_device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = getattr(torch, settings.precision)
        if self.torch_device.type == "cuda":
            self.device = torch.cuda.get_device_name()
            torch.set_float32_matmul_precision("high")  # as the other frameworks have it from the start

    def wait(self):
        """Waits until the device has done all that it was given."""
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize()

    def matrix_product(self, size):
        left, right = [torch.tensor(m, device=self.torch_device, dtype=self.dtype) for m in random_matrices(size)]

        def multiply(times):
            product = left
            for _ in range(times):
                product = torch.mm(product, right)
            self.wait()

        return multiply

    def device_peak(self):
        return torch.cuda.max_memory_allocated() if self.torch_device.type == "cuda" else None
