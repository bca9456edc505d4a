"""Weights from and to other libraries: the authors' code, timm and Hugging Face Transformers."""

from convnext.port.architecture import Architecture
from convnext.port.weights import LIBRARIES, read_weights, write_weights

__all__ = ["LIBRARIES", "Architecture", "read_weights", "write_weights"]
