"""Weights from and to files of Keras, the authors' code, timm and Transformers."""

from convnext.weights.architecture import Architecture, PretrainedError
from convnext.weights.formats import read_weights, write_weights
from convnext.weights.names import LIBRARIES

__all__ = ["LIBRARIES", "Architecture", "PretrainedError", "read_weights", "write_weights"]
