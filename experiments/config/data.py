"""The section `data` of the configuration, and the syntax of sources and image sizes."""

import dataclasses
import math
import re
import typing

from convnext.weights import ImageSettings
from experiments.config.section import Section, require
from experiments.errors import UserError

# A `+` separates sources only in front of the kind of the next one, because a path may contain a `+`.
NAMED_KINDS = ("tfds", "folder", "shards", "webdataset")  # kinds of sources with a name after a colon
JOINT = re.compile(rf"\+(?=digits(?:\*|\+|$)|(?:{'|'.join(NAMED_KINDS)}):)")
WEIGHTED = re.compile(r"(.+)\*(\d*\.?\d+)")


def parse_sources(text: str) -> tuple[tuple[str, float | None], ...]:
    """Returns `((source, weight), ...)` of a text such as `tfds:a*0.7+folder:B*0.3`.

    All weights are None if none is given. The name of a single source is taken literally.

    Raises:
        UserError: if a source is of no known kind, some have weights and others not, or a weight is 0.
    """
    pieces = JOINT.split(text)
    matches = [WEIGHTED.fullmatch(piece) if len(pieces) > 1 else None for piece in pieces]
    sources = [match[1] if match else piece for match, piece in zip(matches, pieces)]
    for source in sources:
        kind, _, name = source.partition(":")
        require(
            source == "digits" or (kind in NAMED_KINDS and name),
            f"data.source={source!r} is not digits, tfds:NAME, folder:PATH, shards:PATH or webdataset:PATTERN.",
        )
    require(all(matches) or not any(matches), f"data.source={text!r}: give a weight to each source, or to none.")
    weights = [float(match[2]) if match else None for match in matches]
    require(0.0 not in weights, f"data.source={text!r}: weights must be above 0.")
    return tuple(zip(sources, weights))


def kept_size(value: int | list[int] | tuple[int, ...], where: str) -> int | tuple[int, ...]:
    """Returns an image size in its normal form: one number for a square, else `(height, width)`.

    Raises:
        UserError: if the value, of the field `where`, is not one or two positive numbers.
    """
    sides = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    require(len(sides) in (1, 2), f"{where} must be one number of pixels or (height, width), got {value}.")
    require(min(sides) >= 1, f"{where} must be at least 1, got {value}.")
    return sides[0] if len(set(sides)) == 1 else sides


def parse_size(text: str, where: str) -> int | tuple[int, ...]:
    """Returns the image size that a text gives: `224`, `96,160` or `96x160`, height first; see `kept_size`."""
    match = re.fullmatch(r"(\d+)(?:[,x](\d+))?", str(text))
    require(match, f"{where}={text} is not a number of pixels or HEIGHT,WIDTH.")
    assert match is not None
    return kept_size(tuple(int(side) for side in match.groups() if side), where)


def height_and_width(size: int | tuple[int, ...]) -> tuple[int, int]:
    """Returns both sides of an image size that is one number or `(height, width)`."""
    return typing.cast(tuple[int, int], size) if isinstance(size, tuple) else (size, size)


def size_text(size: int | tuple[int, ...]) -> str:
    """Returns an image size as text: `96x160`, height first."""
    return "x".join(map(str, height_and_width(size)))


AUTO = "auto"
IMAGENET_MEAN, IMAGENET_STD = ImageSettings.mean, ImageSettings.std
WHOLE_FROM = 384  # side in pixels from which evaluation sees whole images
MAX_PIXELS = 178_956_970  # Pillow's limit, above which it suspects a decompression bomb
LARGEST_NUMBER = 2**16 - 1  # in the masks of a segmentation; the smallest is 0
# How images are prepared for published weights, as fields of `DataConfig`.
IMAGE_SETTINGS = {
    "imagenet": {"image_size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "evaluation_crop": 0.875},
    "dinov3": {"image_size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD, "evaluation_crop": 1.0},
    "clip": {
        "image_size": 224,
        "mean": (0.48145466, 0.4578275, 0.40821073),
        "std": (0.26862954, 0.26130258, 0.27577711),
        "evaluation_crop": 1.0,
    },
}
SPLIT_FIELDS = ("pretrain_split", "train_split", "validation_split", "test_split")


def _no_data(value: typing.Any) -> float | str:
    """Returns a value that marks pixels without data: a number, or the text `nan`, which equals itself."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"data.no_data: expected a number or nan, got {value!r}.") from error
    return "nan" if math.isnan(number) else number


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    """The images.

    Args:
        source: `digits`, `tfds:NAME`, `folder:PATH`, `shards:PATH` of a packed folder, or `webdataset:PATTERN` of tar
            files, see `experiments.data.sources`; for pretraining also several of them, with or without weights:
            `tfds:a+folder:B`, `tfds:a*0.7+folder:B*0.3`, see `experiments.data.sources.mix`.
        dir: where TensorFlow Datasets keeps its data; empty for its own default.
        labels_file: CSV or Parquet file with the labels of a folder's images, in columns `path`, `label` and, if
            wanted, `split`; see `experiments.data.sources.labels_file`. Empty for labels from sub-folders.
        class_names: text file with the classes of a segmentation, see `experiments.data.segmentation_masks`; empty for
            `classes.txt` in the folder, or, without one, for the numbers that occur in the masks.
        ignore_label: numbers in the masks of a segmentation whose pixels are ignored, each from 0 to 65,535.
        mask_feature: the feature of a TensorFlow data set that holds the masks of a segmentation.
        pretrain_split: images for pretraining, in the split syntax of TensorFlow Datasets: `unlabelled`,
            `train[:90%]+extra`; empty for the training split.
        train_split: images for fine-tuning, in the same syntax; empty for `train`.
        validation_split: images for model selection; empty for the rule of `experiments.data.sources.tfds`.
        test_split: images for the final figures; empty for the same rule.
        cache: what stays in memory once a split has been read: `auto` (small images, decoded), `decoded`, `encoded` or
            `none`; see `experiments.data.cache`.
        image_size: of the images that the model sees, in pixels: one number for squares, or `(height, width)`.
        channels: number of channels that the model sees. With 1 or 3, colour or grey images are converted; with any
            other number, images must have exactly this number of channels.
        bands: channels of an image to use, in this order, counted from 1 as in remote sensing; empty for all.
        pages: which pages of a TIFF file are read: the `first`, or `all`, as channels.
        value_range: `(low, high)`: the values of a file that become 0 and 1; values outside are clipped. Empty for the
            range of the file's type: 0 to 255 for 8 bits, 0 to 65,535 for 16, 0 to 1 for floating point.
        no_data: values that mark pixels without data, which become the mean and enter neither targets nor loss. NaN
            (written `nan`) also marks them if any value is given, or if a run finds floating-point images at its start.
        background: value behind transparent pixels, in [0, 1]: one number, or one for each channel.
        mean: mean of each channel, in [0, 1], to subtract; `auto` for the mean of a sample of the training images,
            which the run computes when it starts and records in its `config.json`.
        std: standard deviation of each channel to divide by; `auto` as for the mean, and by default with `mean=auto`.
        display_bands: which of the model's channels pictures show, counted from 1: one or three; empty
            for the first three, or the first of fewer.
        flip: whether training mirrors images at random, left to right.
        evaluation_view: the part of an image that evaluation sees: the `centre`; the `whole` image, squeezed into the
            image size; or `auto`: the whole if both sides of the image size are 384 pixels or more, as in the paper,
            else the centre.
        evaluation_crop: size of the centre crop of evaluation, as a share of the largest window with the aspect ratio
            of `image_size`; for squares, of the shorter side.
        validation_share: share of the training images that is held out for validation.
        test_share: share of a labelled folder without a test split that is held out for testing.
        shuffle_buffer: number of images among which a stream (TFDS) is shuffled. The buffer is filled before the first
            batch, and each reading process holds one for each TFDS source of a mix: it takes this number times the size
            of a file. 65,536 files of 110 kB, such as ImageNet's, take 7.2 GB; 10,000 take 1.1 GB.
        max_pixels: largest number of pixels of an image that is decoded, up to 178,956,970, Pillow's limit. A folder
            skips larger images; elsewhere they count as unreadable. It guards against small files that declare a huge
            size.
    """

    source: str = "digits"
    dir: str = ""
    labels_file: str = ""
    class_names: str = ""
    ignore_label: tuple[int, ...] = ()
    mask_feature: str = "segmentation_mask"
    pretrain_split: str = ""
    train_split: str = ""
    validation_split: str = ""
    test_split: str = ""
    cache: str = "auto"
    image_size: int | tuple[int, ...] = 224
    channels: int = 3
    bands: tuple[int, ...] = ()
    pages: str = "first"
    value_range: tuple[float, ...] = ()
    no_data: tuple[object, ...] = ()
    background: tuple[float, ...] = (1.0,)
    mean: str | tuple[float, ...] = IMAGENET_MEAN
    std: str | tuple[float, ...] = IMAGENET_STD
    display_bands: tuple[int, ...] = ()
    flip: bool = True
    evaluation_view: str = "auto"
    evaluation_crop: float = 0.875
    validation_share: float = 0.1
    test_share: float = 0.1
    shuffle_buffer: int = 65536
    max_pixels: int = MAX_PIXELS

    section: typing.ClassVar[str] = "data"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):  # a flag makes a tuple of the text
            if getattr(self, name) == (AUTO,):
                object.__setattr__(self, name, AUTO)
        super().__post_init__()
        self.require_one_of("cache", ("auto", "decoded", "encoded", "none"))
        object.__setattr__(self, "image_size", kept_size(self.image_size, "data.image_size"))
        object.__setattr__(self, "no_data", tuple(map(_no_data, self.no_data)))
        kinds = [source.partition(":")[0] for source, _ in self.sources]
        for name in SPLIT_FIELDS:
            require(
                "tfds" in kinds or not getattr(self, name),
                f"data.{name} is for data sets of TensorFlow Datasets; data.source={self.source!r} is not.",
            )
        require(
            not self.labels_file or kinds == ["folder"],
            f"data.labels_file is for a single folder:PATH, not data.source={self.source!r}.",
        )
        require(
            all(0 <= number <= LARGEST_NUMBER for number in self.ignore_label),
            f"data.ignore_label={self.ignore_label}: mask values must be from 0 to {LARGEST_NUMBER}.",
        )
        self.require_at_least(1, "channels")
        self._check_values()
        self._check_statistics()
        self.require_one_of("evaluation_view", ("auto", "centre", "whole"))
        self.require_in("(0, 1]", "evaluation_crop")
        self.require_in("[0, 1)", "validation_share", "test_share")
        require(
            self.validation_share + self.test_share < 1,
            "data.validation_share and data.test_share leave no images to train on.",
        )
        self.require_at_least(1, "shuffle_buffer", "max_pixels")
        require(self.max_pixels <= MAX_PIXELS, f"data.max_pixels must be at most {MAX_PIXELS}, got {self.max_pixels}.")

    def _check_values(self) -> None:
        for name, most in (("bands", None), ("display_bands", self.channels)):
            bands = getattr(self, name)
            require(min(bands, default=1) >= 1, f"data.{name} counts channels from 1, got {bands}.")
            fits = most is None or max(bands, default=1) <= most
            require(fits, f"data.{name}={bands} names a channel beyond data.channels={self.channels}.")
        require(
            len(self.bands) in (0, self.channels),
            f"data.bands={self.bands} takes {len(self.bands)} channels: set data.channels={len(self.bands)}.",
        )
        require(len(self.display_bands) in (0, 1, 3), "data.display_bands must name one channel, or three for colours.")
        self.require_one_of("pages", ("first", "all"))
        ends = self.value_range
        require(
            not ends or (len(ends) == 2 and ends[0] < ends[1]),
            f"data.value_range must be (low, high) with low < high, got {ends}.",
        )
        require(
            len(self.background) in (1, self.channels) and 0 <= min(self.background) <= max(self.background) <= 1,
            "data.background must be one number in [0, 1], or one for each of data.channels.",
        )

    def _check_statistics(self) -> None:
        if self.mean == AUTO and self.std == IMAGENET_STD:
            object.__setattr__(self, "std", AUTO)
        given = [getattr(self, name) for name in ("mean", "std") if getattr(self, name) != AUTO]
        require(
            all(not isinstance(numbers, str) and len(numbers) == self.channels for numbers in given),
            f"data.mean and data.std need {self.channels} numbers each, one for each of data.channels, or "
            "data.mean=auto.",
        )
        require(self.std == AUTO or min(typing.cast(tuple[float, ...], self.std)) > 0, "data.std must be above 0.")

    @property
    def shown(self) -> tuple[int, ...]:
        """The channels that pictures show, counted from 0: one or three."""
        if self.display_bands:
            return tuple(band - 1 for band in self.display_bands)
        return (0, 1, 2) if self.channels >= 3 else (0,)

    @property
    def sources(self) -> tuple[tuple[str, float | None], ...]:
        """`((source, weight), ...)`, see `parse_sources`."""
        return parse_sources(self.source)

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)` of the images that the model sees."""
        return height_and_width(self.image_size)

    @property
    def whole_view(self) -> bool:
        """Whether evaluation sees the whole image instead of its centre."""
        return self.evaluation_view == "whole" or (self.evaluation_view == "auto" and min(self.size) >= WHOLE_FROM)
