"""Which model a set of weights belongs to, read from their names and shapes."""

import dataclasses

from convnext.weights.errors import PretrainedError


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
    def of(cls, weights, path="the weights"):
        """Reads the architecture of `{our name: array}`; `path` is what a message calls them.

        Raises:
            PretrainedError: if a weight is missing that tells a size.
        """
        blocks = {tuple(name.split("/")[:2]) for name in weights if name.startswith("stage_") and "/block_" in name}
        num_stages = len({stage for stage, _ in blocks})
        depths = tuple(sum(stage == f"stage_{i}" for stage, _ in blocks) for i in range(num_stages))
        try:
            kernels = [weights[f"stage_{i}/block_0/depthwise_conv/kernel"] for i in range(num_stages)]
            stem = weights["stem/conv/kernel"]
            if {kernel.ndim for kernel in (*kernels, stem)} != {4}:
                raise PretrainedError(f"{path} is no ConvNeXt: its convolutions have kernels of other than 4 axes.")
            if not kernels or not all(kernel.size for kernel in (*kernels, stem)):
                raise PretrainedError(f"{path} is no ConvNeXt: it has no blocks, or none with channels.")
            _check_large_ones(weights, depths, [kernel.shape[2] for kernel in kernels], path)
        except KeyError as error:
            raise PretrainedError(f"{path} has not all weights of a ConvNeXt: it lacks {error}.") from error
        return cls(
            version=2 if "stage_0/block_0/grn/gamma" in weights else 1,
            depths=depths,
            dims=tuple(kernel.shape[2] for kernel in kernels),
            channels=stem.shape[2],
            stem_stride=stem.shape[0],
            kernel_size=kernels[0].shape[0],
            num_classes=weights["head/bias"].size if "head/bias" in weights else 0,
        )


def _check_large_ones(weights, depths, dims, path):
    """Raises PretrainedError if a few small weights stand for a model that is much larger than they are together."""
    stem, kernel = weights["stem/conv/kernel"].shape, weights["stage_0/block_0/depthwise_conv/kernel"].shape
    expected = {"stem/conv/kernel": (stem[0], stem[0], stem[2], dims[0])}
    for i, (depth, dim) in enumerate(zip(depths, dims)):
        expected[f"stage_{i}/block_0/depthwise_conv/kernel"] = (kernel[0], kernel[0], dim, 1)
        expected |= {f"stage_{i}/block_{j}/expansion/kernel": (dim, 4 * dim) for j in range(depth)}
    if "head/bias" in weights:
        expected["head/kernel"] = (dims[-1], weights["head/bias"].size)
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise PretrainedError(f"{path} is no ConvNeXt: {name} has the shape {weights[name].shape}, not {shape}.")
