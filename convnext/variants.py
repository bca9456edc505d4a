"""The published sizes of ConvNeXt, V1 and V2: how many blocks and how many channels each stage has."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Variant:
    """A size of the model.

    Args:
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
    """

    depths: tuple[int, ...]
    dims: tuple[int, ...]


# ConvNeXt (https://arxiv.org/abs/2201.03545), section 3.
CONVNEXT_V1 = {
    "tiny": Variant((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": Variant((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": Variant((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": Variant((3, 3, 27, 3), (192, 384, 768, 1536)),
    "xlarge": Variant((3, 3, 27, 3), (256, 512, 1024, 2048)),
}

# ConvNeXt V2 (https://arxiv.org/abs/2301.00808), appendix A.1.
CONVNEXT_V2 = {
    "atto": Variant((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": Variant((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": Variant((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": Variant((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": Variant((3, 3, 9, 3), (96, 192, 384, 768)),
    "base": Variant((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": Variant((3, 3, 27, 3), (192, 384, 768, 1536)),
    "huge": Variant((3, 3, 27, 3), (352, 704, 1408, 2816)),
}
