"""FCMAE in plain PyTorch, the encoder as a masked dense one: what somebody without sparse kernels would train.

The same function as `fcmae.FCMAE` with `execution="dense"`, in a form that is fast on CPUs: images and maps in the
channels_last memory format, so that LayerNorm reads its channels in one piece; the products over channels as
convolutions of kernel 1x1; the statistics of GRN over visible positions as a product of matrices.
`experiments.benchmarks.contenders.pytorch` compiles it.

The form was chosen by images/s of a prototype: atto, 8 images of 224 pixels, PyTorch 2.13, 2 cores of an AMD EPYC with
AVX-512; medians of 25 steps in turn, during which others kept less than 0.06 cores busy:

                             as it is    compiled
    Linear, as is usual          19.6        23.7
    convolutions 1x1             25.3        31.5

With a masked sum in place of the product of matrices, compiled: 30.3.
"""

import torch
from torch import nn
from torch.nn import functional

EPSILON = 1e-6


class ChannelsNorm(nn.LayerNorm):
    """LayerNorm over the channels of `(B, C, H, W)`."""

    def __init__(self, dim):
        super().__init__(dim, eps=EPSILON)

    def forward(self, x):
        """Normalizes each position; in the channels_last format nothing is moved."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Global response normalization of `(B, C, H, W)`, statistics over visible positions in float32."""

    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(dim))
        self.beta = nn.Parameter(torch.zeros(dim))

    def forward(self, x, visible):
        """Normalizes `x`; `visible` is `(B, 1, H, W)` float32, or None where all positions count."""
        with torch.autocast(x.device.type, enabled=False):
            energy = x.permute(0, 2, 3, 1).flatten(1, 2).float().square()  # (B, H * W, C)
            energy = energy.sum(1) if visible is None else torch.bmm(visible.flatten(2), energy)[:, 0]
            norm = torch.sqrt(energy + EPSILON)
            response = norm / (norm.mean(-1, keepdim=True) + EPSILON)
            scale = (self.gamma * response + 1.0)[:, :, None, None].to(x.dtype)
        return x * scale + self.beta[:, None, None].to(x.dtype)


class Block(nn.Module):
    """ConvNeXt V2 block on `(B, C, H, W)`; hidden positions enter no statistic and come out as they went in."""

    def __init__(self, dim, kernel_size=7):
        super().__init__()
        self.depthwise_conv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = ChannelsNorm(dim)
        self.expansion = nn.Conv2d(dim, 4 * dim, 1)
        self.grn = GlobalResponseNorm(4 * dim)
        self.projection = nn.Conv2d(4 * dim, dim, 1)

    def forward(self, x, visible=None):
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

    def __init__(self, depths, dims, decoder_dim=512, stem_stride=4, channels=3):
        super().__init__()
        self.factor = 2 ** (len(dims) - 1)  # positions of the first stage on the side of a patch
        self.patch_size = stem_stride * self.factor
        self.stem = nn.ModuleDict({"conv": nn.Conv2d(channels, dims[0], stem_stride, stem_stride)})
        self.stem["norm"] = ChannelsNorm(dims[0])
        self.stages = nn.ModuleList()
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

    def _initialize(self):
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, images, visible):
        """Returns the loss, a scalar.

        Args:
            images: `(B, channels, H, W)`.
            visible: `(B, L)` float32, 1 for visible patches and 0 for hidden ones.
        """
        rows, columns = images.shape[2] // self.patch_size, images.shape[3] // self.patch_size
        visible = visible.reshape(-1, 1, rows, columns)
        prediction = self.decode(self.encode(images, visible), visible)
        error = (prediction.float() - self.targets(images)).square().mean(-1)
        hidden = 1.0 - visible.flatten(1)
        return ((error * hidden).sum(-1) / hidden.sum(-1)).mean()

    def encode(self, images, visible):
        """Returns `(B, C, rows, columns)`, zero at hidden patches; `visible` is `(B, 1, rows, columns)`."""
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

    def decode(self, latent, visible):
        """Returns the predicted patches, `(B, L, patch_size * patch_size * channels)`."""
        x = self.embedding(latent)
        kept = visible.to(x.dtype)
        x = x * kept + self.mask_token[:, None, None].to(x.dtype) * (1.0 - kept)
        return self.prediction(self.block(x)).permute(0, 2, 3, 1).flatten(1, 2)

    def targets(self, images):
        """Returns the patches of the images, each brought to mean 0 and variance 1, `(B, L, values)`."""
        batch, channels, height, width = images.shape
        size = self.patch_size
        patches = images.reshape(batch, channels, height // size, size, width // size, size)
        patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, size * size * channels)
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        return (patches - mean) / torch.sqrt(variance + EPSILON)
