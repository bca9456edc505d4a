"""Weights from and to other libraries: the authors' code, timm and Hugging Face Transformers."""

from convnext.weights.architecture import Architecture
from convnext.weights.reading import LIBRARIES, read_weights, write_weights

__all__ = ["LIBRARIES", "Architecture", "read_weights", "write_weights"]
