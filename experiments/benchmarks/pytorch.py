"""The candidates on PyTorch: FCMAE in plain PyTorch with its training step, and the Keras model on that backend.

`MaskedDenseFCMAE` is what somebody without sparse kernels would train: the same function as `fcmae.FCMAE` with
`execution="dense"`, in a form that is fast on CPUs. Images and maps have the channels_last memory format, so that
LayerNorm reads its channels in one piece; products over channels are convolutions of kernel 1x1, and the statistics of
GRN over visible positions a product of matrices. The candidate compiles it and uses the fused AdamW.

The form was chosen by images/s of a prototype (atto, batch 8, PyTorch 2.13, 2 cores with AVX-512), compiled: 31.5; 23.7
with `Linear` instead of convolutions 1x1, 30.3 with a masked sum instead of the product of matrices.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch._inductor.compile_fx  # the compiler, so that its memory counts as imported
from torch import nn
from torch.nn import functional

from experiments.benchmarks.candidates import Candidate, example_losses, make_model_and_optimizer, random_batch
from experiments.config import Config, PretrainConfig

EPSILON = 1e-6


class ChannelsNorm(nn.LayerNorm):
    """LayerNorm over the channels of `(B, C, H, W)`."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalizes each position; in the channels_last format nothing is moved."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Global response normalization of `(B, C, H, W)`, statistics over visible positions in float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(dim))
        self.beta = nn.Parameter(torch.zeros(dim))

    def forward(self, x: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
        """Normalizes `x`; `visible` is `(B, 1, H, W)` float32, or None where all positions count."""
        with torch.autocast(x.device.type, enabled=False):
            energy = x.permute(0, 2, 3, 1).flatten(1, 2).float().square()  # (B, H * W, C)
            energy = energy.sum(1) if visible is None else torch.bmm(visible.flatten(2), energy)[:, 0]
            norm = torch.sqrt(energy + EPSILON)
            response = norm / (norm.mean(-1, keepdim=True) + EPSILON)
            scale = (self.gamma * response + 1.0)[:, :, None, None].to(x.dtype)
        return x * scale + self.beta[:, None, None].to(x.dtype)


class Block(nn.Module):
    """ConvNeXt V2 block on `(B, C, H, W)`; masked positions enter no statistic and are returned unchanged."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise_conv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = ChannelsNorm(dim)
        self.expansion = nn.Conv2d(dim, 4 * dim, 1)
        self.grn = GlobalResponseNorm(4 * dim)
        self.projection = nn.Conv2d(4 * dim, dim, 1)

    def forward(self, x: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
        """Applies the block; `visible` is `(B, 1, H, W)`, or None where all positions exist."""
        branch = self.expansion(self.norm(self.depthwise_conv(x)))
        branch = self.projection(self.grn(functional.gelu(branch), visible))
        return x + (branch if visible is None else branch * visible.to(branch.dtype))


class MaskedDenseFCMAE(nn.Module):
    """Fully convolutional masked autoencoder that computes every position.

    Args:
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
        decoder_dim: channels of the decoder, which has one block.
        stem_stride: side in pixels of the patches of the stem.
        channels: of the images.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        decoder_dim: int = 512,
        stem_stride: int = 4,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.factor = 2 ** (len(dims) - 1)  # positions of the first stage on the side of a patch
        self.patch_size = stem_stride * self.factor
        self.stem = nn.ModuleDict({"conv": nn.Conv2d(channels, dims[0], stem_stride, stem_stride)})
        self.stem["norm"] = ChannelsNorm(dims[0])
        self.stages: Any = nn.ModuleList()
        for i, (depth, dim) in enumerate(zip(depths, dims)):
            stage = nn.ModuleDict({f"block_{j}": Block(dim) for j in range(depth)})
            if i:
                downsampling = {"norm": ChannelsNorm(dims[i - 1]), "conv": nn.Conv2d(dims[i - 1], dim, 2, 2)}
                stage["downsampling"] = nn.ModuleDict(downsampling)
            self.stages.append(stage)
        self.embedding = nn.Conv2d(dims[-1], decoder_dim, 1)
        self.mask_token = nn.Parameter(torch.empty(decoder_dim))
        self.block = Block(decoder_dim)
        self.prediction = nn.Conv2d(decoder_dim, self.patch_size**2 * channels, 1)
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, images: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Returns the loss, a scalar.

        Args:
            images: `(B, channels, H, W)`.
            visible: `(B, L)` float32, 1 for visible patches and 0 for masked ones.
        """
        rows, columns = images.shape[2] // self.patch_size, images.shape[3] // self.patch_size
        visible = visible.reshape(-1, 1, rows, columns)
        prediction = self.decode(self.encode(images, visible), visible)
        error = (prediction.float() - self.targets(images)).square().mean(-1)
        hidden = 1.0 - visible.flatten(1)
        return ((error * hidden).sum(-1) / hidden.sum(-1)).mean()

    def encode(self, images: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Returns `(B, C, rows, columns)`, zero at masked patches; `visible` is `(B, 1, rows, columns)`."""
        factor = self.factor
        x = self.stem["norm"](self.stem["conv"](images))
        for i, stage in enumerate(self.stages):
            if i:
                x = stage["downsampling"]["conv"](stage["downsampling"]["norm"](x))
                factor //= 2
            raised = visible.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
            x = x * raised.to(x.dtype)
            for name, block in stage.items():
                if name != "downsampling":
                    x = block(x, raised)
        return x

    def decode(self, latent: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Returns the predicted patches, `(B, L, patch_size * patch_size * channels)`."""
        x = self.embedding(latent)
        kept = visible.to(x.dtype)
        x = x * kept + self.mask_token[:, None, None].to(x.dtype) * (1.0 - kept)
        return self.prediction(self.block(x)).permute(0, 2, 3, 1).flatten(1, 2)

    def targets(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the patches of the images, each brought to mean 0 and variance 1, `(B, L, values)`."""
        batch, channels, height, width = images.shape
        size = self.patch_size
        patches = images.reshape(batch, channels, height // size, size, width // size, size)
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, size * size * channels)
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) / torch.sqrt(variance + EPSILON)


class TorchCandidate(Candidate):
    """A `Candidate` on the GPU if there is one, else on the CPU."""

    step: Callable[[], torch.Tensor]

    def __init__(self, config: Config, precision: str, ablation: str = "") -> None:
        del ablation
        self._torch_device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = getattr(torch, precision)
        if self._torch_device.type == "cuda":
            self.device = torch.cuda.get_device_name()
            torch.set_float32_matmul_precision("high")  # as the other frameworks have it from the start
        self._batch = [torch.tensor(array, device=self._torch_device) for array in random_batch(config)]

    def run(self, steps: int) -> float:
        for _ in range(steps):
            loss = self.step()
        if self._torch_device.type == "cuda":
            torch.cuda.synchronize()
        return float(loss.detach())

    def device_peak(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self._torch_device.type == "cuda" else None


class KerasTorchCandidate(TorchCandidate):
    """The Keras model on PyTorch, not compiled; see `Candidate`."""

    def __init__(self, config: Config, precision: str, ablation: str = "") -> None:
        super().__init__(config, precision)
        self._model, self._optimizer = make_model_and_optimizer(config, precision, ablation)

    def step(self) -> torch.Tensor:
        variables = self._model.trainable_variables
        self._model.zero_grad()
        images, visible = self._batch
        loss = example_losses(self._model, images, visible).mean()
        loss.backward()
        with torch.no_grad():
            self._optimizer.apply([variable.value.grad for variable in variables], variables)
        return loss


class PyTorchCandidate(TorchCandidate):
    """`MaskedDenseFCMAE`, compiled, with the fused AdamW; see `Candidate`."""

    def __init__(self, config: Config, precision: str, ablation: str = "") -> None:
        super().__init__(config, precision)
        torch.manual_seed(config.seed)
        model: Any = MaskedDenseFCMAE(
            *config.model.stages, config.model.decoder_dim, config.model.stem_stride, config.data.channels
        )
        self._model = model.to(self._torch_device, memory_format=torch.channels_last)
        self._optimizer = _make_adamw(self._model, config.pretrain)
        # From (B, H, W, C) to (B, C, H, W) in the channels_last format: the values stay where they are.
        self._batch[0] = self._batch[0].permute(0, 3, 1, 2)
        self._loss = torch.compile(self._model)
        try:
            self._forward_and_backward()
        except Exception as error:  # It raises what the compiler raises, or that there is none.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self.note = f"pytorch ran uncompiled: {reason}"
            self._loss = self._model
        self._optimizer.zero_grad()

    def _forward_and_backward(self) -> torch.Tensor:
        mixed = self._dtype != torch.float32
        with torch.autocast(self._torch_device.type, self._dtype) if mixed else contextlib.nullcontext():
            loss = self._loss(*self._batch)
        loss.backward()
        return loss

    def step(self) -> torch.Tensor:
        loss = self._forward_and_backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss


def _make_adamw(model: nn.Module, training: PretrainConfig) -> torch.optim.AdamW:
    """Returns AdamW; what has one dimension (biases, normalizations, the mask token) does not decay."""
    decaying = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    spared = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": decaying, "weight_decay": training.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, training.base_learning_rate, (training.beta_1, training.beta_2), fused=True)
