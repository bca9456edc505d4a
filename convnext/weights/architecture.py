"""Which model a set of weights belongs to, read from their names and shapes."""

import dataclasses
import os
from collections.abc import Iterator, Mapping

import numpy as np


class PretrainedError(ValueError):
    """Pretrained weights that cannot be found, cannot be read, or do not fit the model."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The sizes of a ConvNeXt.

    Args:
        version: 1 or 2.
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
        channels: of the images.
        stem_stride: side in pixels of the patches of the stem.
        kernel_size: of the depthwise convolutions.
        num_classes: number of logits; 0 for an encoder without head.
    """

    version: int
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    channels: int
    stem_stride: int
    kernel_size: int
    num_classes: int

    @classmethod
    def of(cls, weights: Mapping[str, np.ndarray], path: str | os.PathLike = "the weights") -> "Architecture":
        """Reads the architecture of `{our name: array}`; `path` is what a message calls them.

        Raises:
            PretrainedError: if a weight is missing that tells a size, or has another shape than that size gives it.
        """
        blocks = {tuple(name.split("/")[:2]) for name in weights if name.startswith("stage_") and "/block_" in name}
        num_stages = len({stage for stage, _ in blocks})
        try:
            stem = weights["stem/conv/kernel"]
            kernels = [weights[f"stage_{i}/block_0/depthwise_conv/kernel"] for i in range(num_stages)]
            if {kernel.ndim for kernel in (*kernels, stem)} != {4}:
                raise PretrainedError(f"{path} is no ConvNeXt: its convolutions have kernels of other than 4 axes.")
            if not kernels or not all(kernel.size for kernel in (*kernels, stem)):
                raise PretrainedError(f"{path} is no ConvNeXt: it has no blocks, or none with channels.")
            architecture = cls(
                version=2 if "stage_0/block_0/grn/gamma" in weights else 1,
                depths=tuple(sum(stage == f"stage_{i}" for stage, _ in blocks) for i in range(num_stages)),
                dims=tuple(kernel.shape[2] for kernel in kernels),
                channels=stem.shape[2],
                stem_stride=stem.shape[0],
                kernel_size=kernels[0].shape[0],
                num_classes=weights["head/bias"].size if "head/bias" in weights else 0,
            )
            for name, shape in architecture._large_shapes():  # a few small weights stand for no large model
                if weights[name].shape != shape:
                    raise PretrainedError(
                        f"{path} is no ConvNeXt: {name} has the shape {weights[name].shape}, not {shape}."
                    )
        except KeyError as error:
            raise PretrainedError(f"{path} has not all weights of a ConvNeXt: it lacks {error}.") from error
        return architecture

    def _large_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields `(name, shape)` of the weights that most of the memory goes to."""
        yield "stem/conv/kernel", (self.stem_stride, self.stem_stride, self.channels, self.dims[0])
        for i, (depth, dim) in enumerate(zip(self.depths, self.dims)):
            yield f"stage_{i}/block_0/depthwise_conv/kernel", (self.kernel_size, self.kernel_size, dim, 1)
            yield from ((f"stage_{i}/block_{j}/expansion/kernel", (dim, 4 * dim)) for j in range(depth))
        if self.num_classes:
            yield "head/kernel", (self.dims[-1], self.num_classes)
