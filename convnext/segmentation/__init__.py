"""Semantic segmentation: decoders over the feature maps of a ConvNeXt, and the model that puts both together."""

from convnext.segmentation.decoders import DECODERS, FPNDecoder, UPerDecoder
from convnext.segmentation.model import Segmenter

__all__ = ["DECODERS", "FPNDecoder", "Segmenter", "UPerDecoder"]
