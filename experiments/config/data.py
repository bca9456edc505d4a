"""The images' section of the configuration."""

import dataclasses
import typing

from experiments.config.mix import parse_sources
from experiments.config.sections import Section, require, require_at_least, require_one_of

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
WHOLE_FROM = 384  # side in pixels from which evaluation cuts nothing off
MAX_PIXELS = 178_956_970  # Pillow's limit, from which it suspects a file that was made to fill the memory
SPLIT_FIELDS = ("pretrain_split", "train_split", "validation_split", "test_split")


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    """The images.

    Args:
        source: `digits`, `tfds:NAME` or `folder:PATH`; for pretraining also several of them, with or without weights:
            `tfds:a+folder:B`, `tfds:a*0.7+folder:B*0.3`, see `experiments.data.mixture`.
        dir: where TensorFlow Datasets keeps its data; empty for its own default.
        pretrain_split: what pretraining learns from, in the split syntax of TensorFlow Datasets: `unlabelled`,
            `train[:90%]+extra`; empty for the training split.
        train_split: what fine-tuning learns from, in the same syntax; empty for `train`.
        validation_split: what choices are made on; empty for the rule of `experiments.data.tfds_splits`.
        test_split: what the final figures are taken on; empty for the same rule.
        cache: whether encoded images stay in memory once a split has been read; see `experiments.data.cache`.
        image_size: side in pixels of the square images that the model sees.
        channels: 1 (grey) or 3 (colour); images of the other kind are converted.
        mean: mean of each channel, in [0, 1], that is subtracted.
        std: standard deviation of each channel that is divided by.
        flip: whether left and right may be exchanged in training.
        evaluation_view: what evaluation sees of an image: its `centre`, the `whole` of it squeezed into a square, or
            `auto`: the whole from 384 pixels up, as the paper does, and the centre below.
        evaluation_crop: share of the shorter side that the centre crop of evaluation keeps.
        validation_share: share of the training images that is held out for choices.
        test_share: share that is held out for the final figures, of a labelled folder without a test split.
        shuffle_buffer: number of images among which a stream (TFDS) is shuffled. It fills before the first batch, and
            each process that reads holds one for each TFDS source of a mix: it takes this number times the size of a
            file. 65,536 files of 110 kB, as ImageNet's are, take 7.2 GB; 10,000 take 1.1 GB.
        max_pixels: largest number of pixels of an image that is decoded, up to 178,956,970, where Pillow draws the
            line; a folder skips larger ones, elsewhere they count as unreadable. A small file can declare any size.
    """

    source: str = "digits"
    dir: str = ""
    pretrain_split: str = ""
    train_split: str = ""
    validation_split: str = ""
    test_split: str = ""
    cache: bool = False
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
    max_pixels: int = MAX_PIXELS

    section: typing.ClassVar[str] = "data"

    def __post_init__(self):
        super().__post_init__()
        kinds = [source.partition(":")[0] for source, _ in self.sources]
        for name in SPLIT_FIELDS:
            require(
                "tfds" in kinds or not getattr(self, name),
                f"data.{name} is for data sets of TensorFlow Datasets; data.source={self.source!r} is none.",
            )
        require(self.channels in (1, 3), f"data.channels is 1 or 3, got {self.channels}.")
        require(
            len(self.mean) == len(self.std) == self.channels,
            f"data.mean and data.std need {self.channels} numbers each, one for each of data.channels.",
        )
        require(min(self.std) > 0, "data.std is above 0.")
        require_one_of("data.evaluation_view", self.evaluation_view, ("auto", "centre", "whole"))
        require(0 < self.evaluation_crop <= 1, "data.evaluation_crop lies in (0, 1].")
        for name in ("validation_share", "test_share"):
            require(0 <= getattr(self, name) < 1, f"data.{name} lies in [0, 1).")
        require(
            self.validation_share + self.test_share < 1, "data.validation_share and data.test_share leave no image."
        )
        require_at_least("data", self, 1, "image_size", "shuffle_buffer", "max_pixels")
        require(self.max_pixels <= MAX_PIXELS, f"data.max_pixels is at most {MAX_PIXELS}, got {self.max_pixels}.")

    @property
    def sources(self):
        """`((source, weight), ...)`, see `parse_sources`."""
        return parse_sources(self.source)

    @property
    def whole_view(self):
        """Whether evaluation sees the whole image instead of its centre."""
        return self.evaluation_view == "whole" or (self.evaluation_view == "auto" and self.image_size >= WHOLE_FROM)
