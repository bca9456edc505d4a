"""The model's section of the configuration."""

import dataclasses
import typing

from convnext.weights.loader import VERSIONS
from experiments.config.sections import Section, require, require_at_least


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section):
    """The encoder and the decoder.

    Args:
        version: of ConvNeXt, 1 or 2.
        variant: published size of that version; `depths` and `dims` take its place where given.
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
        stem_stride: side in pixels of the patches of the stem; 4 in the published models.
        response_normalization: whether the encoder's global response normalization learns. Where it does not, its
            parameters stay at zero, at which it changes nothing: an ablation of version 2.
        decoder_dim: channels of the decoder.
        decoder_depth: blocks of the decoder.
    """

    version: int = 2
    variant: str = "atto"
    depths: tuple[int, ...] = ()
    dims: tuple[int, ...] = ()
    stem_stride: int = 4
    response_normalization: bool = True
    decoder_dim: int = 512
    decoder_depth: int = 1

    section: typing.ClassVar[str] = "model"

    def __post_init__(self):
        super().__post_init__()
        require(self.version in VERSIONS, f"model.version is 1 or 2, got {self.version}.")
        variants = VERSIONS[self.version].MODEL_VARIANTS
        require(
            self.variant in variants or self.depths,
            f"model.variant={self.variant!r} is not one of {', '.join(variants)}, the sizes of version {self.version}.",
        )
        require(
            len(self.depths) == len(self.dims),
            f"model.depths={self.depths} and model.dims={self.dims} need one number for each stage.",
        )
        require_at_least("model", self, 1, "stem_stride", "decoder_dim", "decoder_depth")
        require(
            self.response_normalization or self.version == 2,
            "model.response_normalization=False is for version 2; version 1 has none.",
        )
        require(min(self.depths + self.dims, default=1) > 0, "model.depths and model.dims are numbers above 0.")

    @property
    def stages(self):
        """`(depths, dims)` of the encoder."""
        if self.depths:
            return self.depths, self.dims
        size = VERSIONS[self.version].MODEL_VARIANTS[self.variant]
        return size.depths, size.dims

    @property
    def total_stride(self):
        """Side in pixels of a patch."""
        return self.stem_stride * 2 ** (len(self.stages[0]) - 1)
