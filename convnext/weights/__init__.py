"""Weights from and to files of Keras, the authors' code, timm and Transformers."""

from convnext.weights.architecture import Architecture, PretrainedError
from convnext.weights.folders import ImageSettings
from convnext.weights.formats import read_checkpoint, read_weights, write_weights
from convnext.weights.names import LIBRARIES
from convnext.weights.recognition import Checkpoint
