"""ConvNeXt V1 and V2 in Keras 3, numerically equal to the published models."""

from convnext.backbone import ConvNeXt
from convnext.blocks import ConvNextV1Block, ConvNextV2Block
from convnext.convnext_v1 import ConvNeXtV1
from convnext.convnext_v2 import ConvNeXtV2
from convnext.factory import create_convnext_v1, create_convnext_v2, create_from_weights
from convnext.layers import GlobalResponseNormalization, LayerScale, StochasticDepth
from convnext.weights.architecture import PretrainedError
from convnext.weights.loader import LoadReport, load_pretrained

__all__ = [
    "ConvNeXt",
    "ConvNeXtV1",
    "ConvNeXtV2",
    "ConvNextV1Block",
    "ConvNextV2Block",
    "GlobalResponseNormalization",
    "LayerScale",
    "LoadReport",
    "PretrainedError",
    "StochasticDepth",
    "create_convnext_v1",
    "create_convnext_v2",
    "create_from_weights",
    "load_pretrained",
]
