"""ConvNeXt in Keras 3, equal in numbers to the published models."""

from convnext.blocks import ConvNextV2Block
from convnext.convnext_v2 import ConvNeXtV2, create_convnext_v2
from convnext.layers import GlobalResponseNormalization, StochasticDepth
from convnext.pretrained import LoadReport, PretrainedError, load_pretrained

__all__ = [
    "ConvNeXtV2",
    "ConvNextV2Block",
    "GlobalResponseNormalization",
    "LoadReport",
    "PretrainedError",
    "StochasticDepth",
    "create_convnext_v2",
    "load_pretrained",
]
