"""The fully convolutional masked autoencoder of ConvNeXt V2."""

from fcmae.model import FCMAE
from fcmae.stem_masking import StemMaskedFCMAE

__all__ = ["FCMAE", "StemMaskedFCMAE"]
