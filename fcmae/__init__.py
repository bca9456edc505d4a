"""The fully convolutional masked autoencoder of ConvNeXt V2."""

from fcmae.model import FCMAE

__all__ = ["FCMAE"]
