"""The section `model` of the configuration."""

import dataclasses
import typing

from convnext.factory import VERSIONS
from convnext.layers import ACTIVATIONS, EPSILON
from convnext.remat import REMAT
from experiments.config.section import Section, require


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section):
    """The encoder and the decoder.

    Args:
        version: of ConvNeXt, 1 or 2.
        variant: published size of that version; `depths` and `dims`, if given, override it.
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
        stem_stride: side in pixels of the patches of the stem; 4 in the published models.
        activation: `gelu`, exact as published, or `gelu_tanh`, for pretrained weights that were trained with it.
        epsilon: of the layer normalizations, 1e-6 as published; some pretrained weights need 1e-5.
        response_normalization: whether the encoder's global response normalization is trained. If not, its parameters
            stay at zero, where it is the identity: an ablation of version 2.
        decoder_dim: channels of the decoder.
        decoder_depth: blocks of the decoder.
        remat: gradient checkpointing, what training recomputes for the gradient instead of keeping it in memory:
            `none`, the inside of each `stage`, or of each `block`. Results and random draws are the same.
    """

    version: int = 2
    variant: str = "atto"
    depths: tuple[int, ...] = ()
    dims: tuple[int, ...] = ()
    stem_stride: int = 4
    activation: str = "gelu"
    epsilon: float = EPSILON
    response_normalization: bool = True
    decoder_dim: int = 512
    decoder_depth: int = 1
    remat: str = "none"

    section: typing.ClassVar[str] = "model"

    def __post_init__(self) -> None:
        super().__post_init__()
        versions = " or ".join(map(str, VERSIONS))
        require(self.version in VERSIONS, f"model.version must be {versions}, got {self.version}.")
        variants = VERSIONS[self.version].MODEL_VARIANTS
        require(
            self.variant in variants or self.depths,
            f"model.variant={self.variant!r} is not one of {', '.join(variants)}, the sizes of version {self.version}.",
        )
        require(
            len(self.depths) == len(self.dims),
            f"model.depths={self.depths} and model.dims={self.dims} need one number for each stage.",
        )
        self.require_at_least(1, "stem_stride", "decoder_dim", "decoder_depth")
        self.require_one_of("activation", ACTIVATIONS)
        self.require_one_of("remat", REMAT)
        require(self.epsilon > 0, f"model.epsilon must be above 0, got {self.epsilon:g}.")
        require(
            self.response_normalization or self.version == 2,
            "model.response_normalization=False is for version 2; version 1 has none.",
        )
        require(min(self.depths + self.dims, default=1) > 0, "model.depths and model.dims must be numbers above 0.")

    @property
    def stages(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """`(depths, dims)` of the encoder."""
        if self.depths:
            return self.depths, self.dims
        size = VERSIONS[self.version].MODEL_VARIANTS[self.variant]
        return size.depths, size.dims

    @property
    def total_stride(self) -> int:
        """Side in pixels of a patch."""
        return self.stem_stride * 2 ** (len(self.stages[0]) - 1)
