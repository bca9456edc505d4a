"""The images' section of the configuration."""

import dataclasses
import typing

from experiments.config.sections import Section, require, require_at_least

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
WHOLE_FROM = 384  # side in pixels from which evaluation cuts nothing off


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    """The images.

    Args:
        source: `digits`, `tfds:NAME` or `folder:PATH`.
        dir: where TensorFlow Datasets keeps its data; empty for its own default.
        image_size: side in pixels of the square images that the model sees.
        channels: 1 (grey) or 3 (colour); images of the other kind are converted.
        mean: mean of each channel, in [0, 1], that is subtracted.
        std: standard deviation of each channel that is divided by.
        flip: whether left and right may be exchanged in training.
        evaluation_view: what evaluation sees of an image: its `centre`, the `whole` of it squeezed into a square, or
            `auto`: the whole from 384 pixels up, as the paper does, and the centre below.
        evaluation_crop: share of the shorter side that the centre crop of evaluation keeps.
        validation_share: share of the training images that is held out for choices.
        test_share: share that is held out for the final figures, for a source without a test split of its own.
        shuffle_buffer: number of images among which a stream (TFDS) is shuffled.
    """

    source: str = "digits"
    dir: str = ""
    image_size: int = 224
    channels: int = 3
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    flip: bool = True
    evaluation_view: str = "auto"
    evaluation_crop: float = 0.875
    validation_share: float = 0.1
    test_share: float = 0.1
    shuffle_buffer: int = 65536

    section: typing.ClassVar[str] = "data"

    def __post_init__(self):
        super().__post_init__()
        kind, _, name = self.source.partition(":")
        require(
            self.source == "digits" or (kind in ("tfds", "folder") and name),
            f"data.source={self.source!r} is not digits, tfds:NAME or folder:PATH.",
        )
        require(self.channels in (1, 3), f"data.channels is 1 or 3, got {self.channels}.")
        require(
            len(self.mean) == len(self.std) == self.channels,
            f"data.mean and data.std need {self.channels} numbers each, one for each of data.channels.",
        )
        require(min(self.std) > 0, "data.std is above 0.")
        require(
            self.evaluation_view in ("auto", "centre", "whole"),
            f"data.evaluation_view={self.evaluation_view!r} is not one of auto, centre, whole.",
        )
        require(0 < self.evaluation_crop <= 1, "data.evaluation_crop lies in (0, 1].")
        for name in ("validation_share", "test_share"):
            require(0 <= getattr(self, name) < 1, f"data.{name} lies in [0, 1).")
        require(
            self.validation_share + self.test_share < 1, "data.validation_share and data.test_share leave no image."
        )
        require_at_least("data", self, 1, "image_size", "shuffle_buffer")

    @property
    def whole_view(self):
        """Whether evaluation sees the whole image instead of its centre."""
        return self.evaluation_view == "whole" or (self.evaluation_view == "auto" and self.image_size >= WHOLE_FROM)
