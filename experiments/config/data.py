"""The typed configuration of a run: fields, defaults and validation.

A preset makes a `Config`; the command line overrides fields of it (`--config.pretrain.epochs=50`). Everything is
validated when it is made and never changed afterwards. What follows from the configuration and the data
together (steps, peak rate) is computed in `experiments.training.schedule`.
"""

import dataclasses
import math
import re
import types
import typing

from ml_collections import config_dict

from convnext.layers import ACTIVATIONS, EPSILON
from convnext.remat import REMAT
from convnext.segmentation import DECODERS
from convnext.weights import ImageSettings
from convnext.weights.loader import STEMS, VERSIONS
from experiments.errors import UserError
from experiments.optim.param_groups import GROUPS
from fcmae.encoder import EXECUTIONS
from fcmae.masking import num_visible, patch_grid

# Types as a person calls them.
NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the configuration: every value has the type that its field declares, and numbers are finite."""

    section: typing.ClassVar[str] = ""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            where = f"{self.section}.{field.name}" if self.section else field.name
            object.__setattr__(self, field.name, typed(field.type, getattr(self, field.name), where))


def from_mapping(cls, values, prefix):
    """Makes a section, and those inside it, of nested mappings; `prefix` is what leads to its fields.

    Raises:
        UserError: if a field is unknown or its value is not allowed.
    """
    has_fields = isinstance(values, (dict, config_dict.ConfigDict))
    require(has_fields, f"{prefix.rstrip('.') or 'The configuration'} has fields, got {values!r}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = [name for name in values if name not in fields]
    require(not unknown, f"Unknown configuration: {', '.join(prefix + name for name in unknown)}.")
    arguments = {}
    for name, value in values.items():
        kind = fields[name].type
        arguments[name] = from_mapping(kind, value, f"{prefix}{name}.") if dataclasses.is_dataclass(kind) else value
    return cls(**arguments)


def typed(kind, value, where):
    """Returns a value as the type that is declared: an integer is a float too, a list a tuple, nothing else changes."""
    if isinstance(kind, types.UnionType):  # of one value and a tuple of several
        one, several = typing.get_args(kind)
        kind = several if isinstance(value, (list, tuple)) else one
    if typing.get_origin(kind) is tuple:
        require(isinstance(value, (list, tuple)), f"{where} is a tuple, got {value!r}.")
        return tuple(typed(typing.get_args(kind)[0], item, where) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    wrong = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
    require(not wrong, f"{where}: {value!r} is no {NAMES.get(kind, kind.__name__)}.")
    require(kind is not float or math.isfinite(value), f"{where}: {value!r} is not finite.")
    return value


def require(condition, message):
    """Raises UserError with the message unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_at_least(section, config, smallest, *names):
    """Raises UserError unless the fields of those names are `smallest` or more."""
    for name in names:
        value = getattr(config, name)
        where = f"{section}.{name}" if section else name
        require(value >= smallest, f"{where} is at least {smallest}, got {value}.")


def require_one_of(where, value, allowed):
    """Raises UserError unless the value of the field called `where` is among the `allowed` ones."""
    require(value in allowed, f"{where}={value!r} is not one of {', '.join(allowed)}.")


def require_distinct(where, values):
    """Raises UserError if the field called `where` names one of its values twice."""
    require(len(set(values)) == len(values), f"{where} names one of its values twice.")


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section):
    """The encoder and the decoder.

    Args:
        version: of ConvNeXt, 1 or 2.
        variant: published size of that version; `depths` and `dims` take its place where given.
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
        stem_stride: side in pixels of the patches of the stem; 4 in the published models.
        activation: `gelu`, exact as published, or `gelu_tanh`, for pretrained weights that were trained with it.
        epsilon: of the layer normalizations, 1e-6 as published; some pretrained weights want 1e-5.
        response_normalization: whether the encoder's global response normalization learns. Where it does not, its
            parameters stay at zero, at which it changes nothing: an ablation of version 2.
        decoder_dim: channels of the decoder.
        decoder_depth: blocks of the decoder.
        remat: what training computes again for the gradient instead of keeping it in memory: `none`, the inside of each
            `stage`, or of each `block`. Numbers and random draws are the same.
    """

    version: int = 2
    variant: str = "atto"
    depths: tuple[int, ...] = ()
    dims: tuple[int, ...] = ()
    stem_stride: int = 4
    activation: str = "gelu"
    epsilon: float = EPSILON
    response_normalization: bool = True
    decoder_dim: int = 512
    decoder_depth: int = 1
    remat: str = "none"

    section: typing.ClassVar[str] = "model"

    def __post_init__(self):
        super().__post_init__()
        require(self.version in VERSIONS, f"model.version is 1 or 2, got {self.version}.")
        variants = VERSIONS[self.version].MODEL_VARIANTS
        require(
            self.variant in variants or self.depths,
            f"model.variant={self.variant!r} is not one of {', '.join(variants)}, the sizes of version {self.version}.",
        )
        require(
            len(self.depths) == len(self.dims),
            f"model.depths={self.depths} and model.dims={self.dims} need one number for each stage.",
        )
        require_at_least("model", self, 1, "stem_stride", "decoder_dim", "decoder_depth")
        require_one_of("model.activation", self.activation, ACTIVATIONS)
        require_one_of("model.remat", self.remat, REMAT)
        require(self.epsilon > 0, f"model.epsilon is above 0, got {self.epsilon:g}.")
        require(
            self.response_normalization or self.version == 2,
            "model.response_normalization=False is for version 2; version 1 has none.",
        )
        require(min(self.depths + self.dims, default=1) > 0, "model.depths and model.dims are numbers above 0.")

    @property
    def stages(self):
        """`(depths, dims)` of the encoder."""
        if self.depths:
            return self.depths, self.dims
        size = VERSIONS[self.version].MODEL_VARIANTS[self.variant]
        return size.depths, size.dims

    @property
    def total_stride(self):
        """Side in pixels of a patch."""
        return self.stem_stride * 2 ** (len(self.stages[0]) - 1)


# A `+` joins two sources only before the kind of another: a path may hold one.
NAMED_KINDS = ("tfds", "folder", "shards", "webdataset")  # of sources that have a name, after a colon
JOINT = re.compile(rf"\+(?=digits(?:\*|\+|$)|(?:{'|'.join(NAMED_KINDS)}):)")
WEIGHTED = re.compile(r"(.+)\*(\d*\.?\d+)")


def parse_sources(text):
    """Returns `((source, weight), ...)` of a text such as `tfds:a*0.7+folder:B*0.3`.

    The weight is None for all where none is given, as for a single source, whose name is taken as it stands.

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
    require(0.0 not in weights, f"data.source={text!r}: a weight is above 0.")
    return tuple(zip(sources, weights))


def kept_size(value, where):
    """Returns an image size as it is kept: one number of a square, else `(height, width)`.

    Raises:
        UserError: if the value of the field called `where` is not one or two numbers from 1 on.
    """
    sides = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    require(len(sides) in (1, 2), f"{where} is one number of pixels or (height, width), got {value}.")
    require(min(sides) >= 1, f"{where} is at least 1, got {value}.")
    return sides[0] if len(set(sides)) == 1 else sides


def parse_size(text, where):
    """Returns the image size that a text gives: `224`, `96,160` or `96x160`, height first; see `kept_size`."""
    match = re.fullmatch(r"(\d+)(?:[,x](\d+))?", str(text))
    require(match, f"{where}={text} is not a number of pixels or HEIGHT,WIDTH.")
    return kept_size(tuple(int(side) for side in match.groups() if side), where)


def height_and_width(size):
    """Returns both sides of an image size that is one number or `(height, width)`."""
    return size if isinstance(size, tuple) else (size, size)


def size_text(size):
    """Returns an image size as people write it: `96x160`, height first."""
    return "x".join(map(str, height_and_width(size)))


AUTO = "auto"
CROPS = (AUTO, "resized", "padded")
IMAGENET_MEAN, IMAGENET_STD = ImageSettings.mean, ImageSettings.std
WHOLE_FROM = 384  # side in pixels from which evaluation cuts nothing off
MAX_PIXELS = 178_956_970  # Pillow's limit, from which it suspects a file that was made to fill the memory
SPLIT_FIELDS = ("pretrain_split", "train_split", "validation_split", "test_split")


def _no_data(value):
    """Returns a value that marks pixels without data: a number, or the text `nan`, which equals itself."""
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"data.no_data: {value!r} is no number, nor nan.") from error
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
        class_names: text file with the names of the classes of a segmentation, see `experiments.data.masks`; empty for
            `classes.txt` in the folder, or without one for the numbers that occur in the masks.
        ignore_label: numbers in the masks of a segmentation whose pixels do not count.
        mask_feature: of a data set of TensorFlow Datasets, the feature that holds the masks of a segmentation.
        pretrain_split: what pretraining learns from, in the split syntax of TensorFlow Datasets: `unlabelled`,
            `train[:90%]+extra`; empty for the training split.
        train_split: what fine-tuning learns from, in the same syntax; empty for `train`.
        validation_split: what choices are made on; empty for the rule of `experiments.data.sources.tfds`.
        test_split: what the final figures are taken on; empty for the same rule.
        cache: what stays in memory once a split has been read: `auto` (small images, decoded), `decoded`, `encoded` or
            `none`; see `experiments.data.cache`.
        image_size: of the images that the model sees, in pixels: one number for squares, or `(height, width)`.
        channels: number of channels that the model sees. With 1 (grey) or 3 (colour) images of the other kind are
            converted; with any other number an image has to have as many.
        bands: channels of an image that are taken, in this order, counted from 1 as remote sensing does; empty for all.
        pages: of a TIFF file with several, the `first`, or `all` of them as channels.
        value_range: `(low, high)`: the values of a file that become 0 and 1; what lies outside is cut off. Empty for
            the range of the file's type: 0 to 255 of 8 bits, 0 to 65,535 of 16, 0 to 1 of floating point.
        no_data: values that mark pixels without data, which become the mean and enter neither targets nor loss. NaN,
            written `nan`, does too where any is given, or where floating-point images are found at the start of a run.
        background: what shows through transparent pixels, in [0, 1]: one number, or one for each channel.
        mean: mean of each channel, in [0, 1], that is subtracted; `auto` for that of a sample of the training images,
            which the run computes when it starts and keeps in its `config.json`.
        std: standard deviation of each channel that is divided by; `auto` in the same way, and by default with
            `mean=auto`.
        display_bands: channels that pictures show, among those that the model sees, counted from 1: one or three; empty
            for the first three, or the first of fewer.
        flip: whether left and right may be exchanged in training.
        evaluation_view: what evaluation sees of an image: its `centre`, the `whole` of it squeezed into the image size,
            or `auto`: the whole where both sides have 384 pixels or more, as in the paper, and the centre below.
        evaluation_crop: size of the centre crop of evaluation, as a share of the largest window of the aspect ratio of
            `image_size`: of a square, of the shorter side.
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

    def __post_init__(self):
        for name in ("mean", "std"):  # a flag makes a tuple of the text
            if getattr(self, name) == (AUTO,):
                object.__setattr__(self, name, AUTO)
        # It was true or false once.
        object.__setattr__(self, "cache", {"True": "encoded", "False": "none"}.get(str(self.cache), self.cache))
        super().__post_init__()
        require_one_of("data.cache", self.cache, ("auto", "decoded", "encoded", "none"))
        object.__setattr__(self, "image_size", kept_size(self.image_size, "data.image_size"))
        object.__setattr__(self, "no_data", tuple(map(_no_data, self.no_data)))
        kinds = [source.partition(":")[0] for source, _ in self.sources]
        for name in SPLIT_FIELDS:
            require(
                "tfds" in kinds or not getattr(self, name),
                f"data.{name} is for data sets of TensorFlow Datasets; data.source={self.source!r} is none.",
            )
        require(
            not self.labels_file or kinds == ["folder"],
            f"data.labels_file is for a single folder:PATH; data.source={self.source!r} is none.",
        )
        require_at_least("data", self, 1, "channels")
        self._check_values()
        self._check_statistics()
        require_one_of("data.evaluation_view", self.evaluation_view, ("auto", "centre", "whole"))
        require(0 < self.evaluation_crop <= 1, "data.evaluation_crop lies in (0, 1].")
        for name in ("validation_share", "test_share"):
            require(0 <= getattr(self, name) < 1, f"data.{name} lies in [0, 1).")
        require(
            self.validation_share + self.test_share < 1, "data.validation_share and data.test_share leave no image."
        )
        require_at_least("data", self, 1, "shuffle_buffer", "max_pixels")
        require(self.max_pixels <= MAX_PIXELS, f"data.max_pixels is at most {MAX_PIXELS}, got {self.max_pixels}.")

    def _check_values(self):
        for name, most in (("bands", None), ("display_bands", self.channels)):
            bands = getattr(self, name)
            require(min(bands, default=1) >= 1, f"data.{name} counts channels from 1, got {bands}.")
            fits = most is None or max(bands, default=1) <= most
            require(fits, f"data.{name}={bands} names one beyond data.channels={self.channels}.")
        require(
            len(self.bands) in (0, self.channels),
            f"data.bands={self.bands} takes {len(self.bands)} channels: set data.channels={len(self.bands)}.",
        )
        require(len(self.display_bands) in (0, 1, 3), "data.display_bands names one channel, or three for colours.")
        require_one_of("data.pages", self.pages, ("first", "all"))
        ends = self.value_range
        require(
            not ends or (len(ends) == 2 and ends[0] < ends[1]),
            f"data.value_range is (low, high) with low < high, got {ends}.",
        )
        require(
            len(self.background) in (1, self.channels) and 0 <= min(self.background) <= max(self.background) <= 1,
            "data.background is one number in [0, 1], or one for each of data.channels.",
        )

    def _check_statistics(self):
        if self.mean == AUTO and self.std == IMAGENET_STD:
            object.__setattr__(self, "std", AUTO)
        given = [getattr(self, name) for name in ("mean", "std") if getattr(self, name) != AUTO]
        require(
            all(not isinstance(numbers, str) and len(numbers) == self.channels for numbers in given),
            f"data.mean and data.std need {self.channels} numbers each, one for each of data.channels, or "
            "data.mean=auto.",
        )
        require(self.std == AUTO or min(self.std) > 0, "data.std is above 0.")

    @property
    def shown(self):
        """Channels that pictures show, counted from 0: one or three."""
        if self.display_bands:
            return tuple(band - 1 for band in self.display_bands)
        return (0, 1, 2) if self.channels >= 3 else (0,)

    @property
    def sources(self):
        """`((source, weight), ...)`, see `parse_sources`."""
        return parse_sources(self.source)

    @property
    def size(self):
        """`(height, width)` of the images that the model sees."""
        return height_and_width(self.image_size)

    @property
    def whole_view(self):
        """Whether evaluation sees the whole image instead of its centre."""
        return self.evaluation_view == "whole" or (self.evaluation_view == "auto" and min(self.size) >= WHOLE_FROM)


MASKINGS = ("every_layer", "after_stem")


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Section):
    """What pretraining and fine-tuning share.

    Args:
        epochs: length of the run.
        steps: length of the run in steps instead, where above 0.
        batch_size: images of one optimizer step, over all devices and accumulation steps.
        accumulation_steps: parts in which a device works through its share of a batch, to need less memory.
        crop: how training crops: `resized` resizes a random window, with `crop_scale`; `padded` moves the view of
            evaluation by up to an eighth of its side at random, with black where nothing is; `auto` is `padded` for
            images of up to 64 pixels, such as CIFAR's, and `resized` for larger ones.
        crop_scale: smallest and largest area of the random crop, as a share of the image.
        base_learning_rate: peak rate for a batch of 256; the rate grows in proportion to the batch.
        min_learning_rate: rate at the end of the cosine.
        warmup_epochs: length of the linear rise to the peak rate; may be a fraction.
        weight_decay: decoupled decay of AdamW.
        beta_1: decay of AdamW's first moment.
        beta_2: decay of AdamW's second moment.
        clip_norm: largest global norm of the gradient; 0 does not clip.
        evaluations: how often over the run the validation images are evaluated, evenly spaced, at most once an
            epoch, the last time at the end; 0 for the end alone.
    """

    epochs: int = 100
    steps: int = 0
    batch_size: int = 256
    accumulation_steps: int = 1
    crop: str = "auto"
    crop_scale: tuple[float, ...] = (0.2, 1.0)
    base_learning_rate: float = 1.5e-4
    min_learning_rate: float = 0.0
    warmup_epochs: float = 5.0
    weight_decay: float = 0.05
    beta_1: float = 0.9
    beta_2: float = 0.999
    clip_norm: float = 0.0
    evaluations: int = 10

    section: typing.ClassVar[str] = "training"
    augmentation: typing.ClassVar[dict] = {}  # arguments of `Preprocessing` beside cropping and flipping

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self.section, self, 1, "epochs", "batch_size", "accumulation_steps")
        require_at_least(
            self.section,
            self,
            0,
            *("steps", "min_learning_rate", "warmup_epochs", "weight_decay", "clip_norm", "evaluations"),
        )
        require(self.base_learning_rate > 0, f"{self.section}.base_learning_rate is above 0.")
        require(0 <= self.beta_1 < 1 and 0 <= self.beta_2 < 1, f"{self.section}.beta_1 and beta_2 lie in [0, 1).")
        require_one_of(f"{self.section}.crop", self.crop, CROPS)
        scale = self.crop_scale
        require(
            len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1,
            f"{self.section}.crop_scale is (smallest, largest) with 0 < smallest <= largest <= 1, got {scale}.",
        )
        require(
            self.batch_size % self.accumulation_steps == 0,
            f"{self.section}.batch_size={self.batch_size} does not divide by "
            f"{self.section}.accumulation_steps={self.accumulation_steps}.",
        )


@dataclasses.dataclass(frozen=True)
class PretrainConfig(TrainingConfig):
    """Pretraining; the arguments of `TrainingConfig`, and:

    Args:
        mask_ratio: share of hidden patches, in (0, 1).
        masking: where the encoder hides patches: in `every_layer`, as FCMAE does, or `after_stem` alone, with dense
            convolutions from there on: an ablation of the paper, see `fcmae.StemMaskedFCMAE`.
        execution: `sparse` computes the visible positions alone, `dense` all of them, with the same result.
        normalize_targets: whether target patches are normalized by their own mean and variance.
        pictures: number of pictures of reconstructions over a run, evenly spaced, at most one an epoch; the last
            is at the end.
        probe_every: epochs between two looks at what the frozen encoder knows of the classes, by k-NN and by a linear
            probe, and once more at the end; the same of a random encoder is logged once. Needs labels, which
            pretraining itself does not see. 0 for none.
        probe_images: largest number of training images that the probes learn from, drawn with the seed and balanced
            over the classes, and of validation images that they are scored on.
    """

    beta_2: float = 0.95
    mask_ratio: float = 0.6
    masking: str = "every_layer"
    execution: str = "sparse"
    normalize_targets: bool = True
    pictures: int = 5
    probe_every: int = 0
    probe_images: int = 10000

    section: typing.ClassVar[str] = "pretrain"

    def __post_init__(self):
        super().__post_init__()
        require_one_of("pretrain.masking", self.masking, MASKINGS)
        require_one_of("pretrain.execution", self.execution, EXECUTIONS)
        require_at_least(self.section, self, 0, "pictures", "probe_every")
        require_at_least(self.section, self, 2, "probe_images")


CLASS_WEIGHTS = ("none", "balanced")
TASKS = ("classification", "segmentation")
# Fields of fine-tuning that segmentation has no use for, and must not be set.
FOR_CLASSIFICATION = (
    *("label_smoothing", "randaugment_magnitude", "erasing_probability", "mixup_alpha", "cutmix_alpha"),
    *("dropout_rate", "multi_label"),
)


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(TrainingConfig):
    """Fine-tuning; the arguments of `TrainingConfig`, and:

    All augmentation but cropping and flipping is off by default. The paper's for its larger models: a RandAugment
    magnitude of 9, an erasing probability of 0.25, Mixup with 0.8, CutMix with 1.0, label smoothing of 0.1; for its
    smallest no Mixup and CutMix, and label smoothing of 0.2.

    Args:
        task: `classification` of images or `segmentation`, a class for each pixel, see `SegmentationConfig`.
        labels: which labelled images are used: `all`, a number of them (`100`), a share (`1%`), or
            `10 per class`; drawn with the seed and balanced over the classes.
        drop_path_rate: stochastic depth rate of the last block.
        dropout_rate: of the pooled features.
        label_smoothing: share of the target that is spread over all classes.
        randaugment_magnitude: mean strength of RandAugment's two operations, in [0, 10]; 0 for none.
        randaugment_noise: standard deviation of that strength.
        color_jitter: strengths of brightness, contrast, saturation and hue; a factor is drawn from 1 - strength to
            1 + strength, the hue turns by up to its strength of the whole circle. Not together with RandAugment,
            which has such operations.
        erasing_probability: with which a random rectangle of an image becomes noise.
        mixup_alpha: parameter of the Beta distribution by which Mixup mixes two images; 0 for no Mixup.
        cutmix_alpha: parameter of the Beta distribution of the area by which CutMix pastes one image into another; 0
            for no CutMix.
        mix_probability: with which a batch is mixed, by Mixup or CutMix.
        switch_probability: with which a mixed batch takes CutMix, where there are both.
        layer_decay: factor of the learning rate from a layer to the one below it, in (0, 1]; 1 for one rate for all.
        layer_decay_groups: what a layer is: `single` a block, `group` three consecutive blocks; see `LayerDecay`.
        head_init_scale: factor of the initial weights of the logits. It does not apply to weights that are loaded, when
            a run resumes or from a pretrained classifier of as many classes; the authors' code draws the logits'
            weights anew whatever it loads.
        ema_decay: decay of an exponential moving average of the weights that train; 0 for none. It begins with the
            weights that the run begins with and moves from the first step on, without a correction or warmup, as in
            the authors' code; so it needs many more steps than 1 / (1 - ema_decay).
        frozen_encoder: whether the encoder stays as it is, in inference mode, and the weights of the logits alone are
            learned: a linear probe. The normalization before them stays too; MAE's probe has one without parameters.
        report_test: whether the summary has the figures of the test images. False where settings are compared, so that
            nobody chooses by them; `launch.evaluate` gives them for the run that was chosen.
        class_weights: `none`, or `balanced`: each class has the same weight in the loss, however many images (in
            segmentation: pixels) it has; in multi-label fine-tuning, of each class the images with and without it.
        multi_label: whether each class has a sigmoid of its own, for images of several classes or none; always where
            labels name several, see `data.labels_file`.
    """

    task: str = "classification"
    labels: str = "all"
    drop_path_rate: float = 0.0
    dropout_rate: float = 0.0
    label_smoothing: float = 0.0
    randaugment_magnitude: float = 0.0
    randaugment_noise: float = 0.5
    color_jitter: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    erasing_probability: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5
    layer_decay: float = 1.0
    layer_decay_groups: str = "single"
    head_init_scale: float = 0.001
    ema_decay: float = 0.0
    frozen_encoder: bool = False
    report_test: bool = True
    class_weights: str = "none"
    multi_label: bool = False

    section: typing.ClassVar[str] = "finetune"

    def __post_init__(self):
        super().__post_init__()
        for name in ("drop_path_rate", "dropout_rate", "label_smoothing", "ema_decay"):
            require(0 <= getattr(self, name) < 1, f"finetune.{name} lies in [0, 1).")
        for name in ("erasing_probability", "mix_probability", "switch_probability"):
            require(0 <= getattr(self, name) <= 1, f"finetune.{name} lies in [0, 1].")
        require_at_least("finetune", self, 0, "randaugment_noise", "mixup_alpha", "cutmix_alpha", "head_init_scale")
        require(0 <= self.randaugment_magnitude <= 10, "finetune.randaugment_magnitude lies in [0, 10].")
        self._check_color_jitter()
        self._check_training()

    @property
    def augmentation(self):
        """Arguments of `Preprocessing` beside cropping and flipping."""
        return {
            "randaugment_magnitude": self.randaugment_magnitude,
            "randaugment_noise": self.randaugment_noise,
            "color_jitter": self.color_jitter,
            "erasing_probability": self.erasing_probability,
        }

    def _check_color_jitter(self):
        strengths = self.color_jitter
        require(
            len(strengths) == 4 and min(strengths) >= 0 and strengths[-1] <= 0.5,
            "finetune.color_jitter is (brightness, contrast, saturation, hue), each at least 0 and the hue at most "
            f"0.5, got {strengths}.",
        )
        require(
            not (any(strengths) and self.randaugment_magnitude),
            "finetune.color_jitter and finetune.randaugment_magnitude do not go together: set one of them to 0.",
        )

    def _check_training(self):
        require(0 < self.layer_decay <= 1, f"finetune.layer_decay lies in (0, 1], got {self.layer_decay:g}.")
        choices = (("task", TASKS), ("layer_decay_groups", GROUPS), ("class_weights", CLASS_WEIGHTS))
        for name, allowed in choices:
            require_one_of(f"finetune.{name}", getattr(self, name), allowed)
        if self.task == "segmentation":
            for field in dataclasses.fields(self):
                unused = field.name in FOR_CLASSIFICATION and getattr(self, field.name) != field.default
                require(not unused, f"finetune.{field.name} is for finetune.task=classification: leave it out.")
        if not self.frozen_encoder:
            return
        for name, off in (("drop_path_rate", 0.0), ("layer_decay", 1.0)):
            require(
                getattr(self, name) == off,
                f"finetune.frozen_encoder leaves nothing for finetune.{name}={getattr(self, name):g} to act on: add "
                f"--config.finetune.{name}={off:g}.",
            )


@dataclasses.dataclass(frozen=True)
class SegmentationConfig(Section):
    """Segmentation, with `finetune.task=segmentation`, beside what `finetune` says of training.

    A training image is a window of `data.image_size`, out of an image that is enlarged or reduced at random; what of
    the window lies outside of the image does not count. `finetune.crop` and `crop_scale` are not used.

    Args:
        decoder: `upernet`, as in the ConvNeXt papers, or `fpn`, which is lighter.
        decoder_dim: channels of the decoder; the papers' UPerNet has 512.
        dropout_rate: of the channels before the logits.
        auxiliary_weight: weight in the loss of a second, small head on the last stage but one; 0 for none.
        dice_weight: weight in the loss of the Dice loss, beside the cross-entropy; 0 for none.
        scale: smallest and largest factor by which training changes the size of an image, drawn log-uniformly.
        window: largest height and width of what evaluation sees at a time, in pixels; larger images are cut into
            windows that overlap.
        window_overlap: share of a window that the next one repeats at least, in [0, 1).
        pictures: number of pictures of images, masks and predictions over a run, evenly spaced, at most one an epoch.
    """

    decoder: str = "upernet"
    decoder_dim: int = 512
    dropout_rate: float = 0.1
    auxiliary_weight: float = 0.4
    dice_weight: float = 0.0
    scale: tuple[float, ...] = (0.5, 2.0)
    window: int = 1024
    window_overlap: float = 0.25
    pictures: int = 5

    section: typing.ClassVar[str] = "segmentation"

    def __post_init__(self):
        super().__post_init__()
        require_one_of("segmentation.decoder", self.decoder, DECODERS)
        require_at_least("segmentation", self, 1, "decoder_dim", "window")
        require_at_least("segmentation", self, 0, "auxiliary_weight", "dice_weight", "pictures")
        for name in ("dropout_rate", "window_overlap"):
            require(0 <= getattr(self, name) < 1, f"segmentation.{name} lies in [0, 1).")
        scale = self.scale
        require(
            len(scale) == 2 and 0 < scale[0] <= scale[1],
            f"segmentation.scale is (smallest, largest) with 0 < smallest <= largest, got {scale}.",
        )


# What one device evaluates at a time unless told otherwise: images, and the memory of what a block computes of them.
MOST_IN_EVALUATION, EVALUATION_BYTES = 256, 2**30


@dataclasses.dataclass(frozen=True)
class WandbConfig(Section):
    """Weights & Biases.

    Args:
        mode: `disabled`, `offline` or `online`.
        project: where the run appears.
        name: of the run; empty for the name of the workdir.
    """

    mode: str = "disabled"
    project: str = "fcmae"
    name: str = ""

    section: typing.ClassVar[str] = "wandb"

    def __post_init__(self):
        super().__post_init__()
        require_one_of("wandb.mode", self.mode, ("disabled", "offline", "online"))


@dataclasses.dataclass(frozen=True)
class Config(Section):
    """An experiment: one description for pretraining, fine-tuning and evaluation.

    Args:
        seed: everything random follows from it.
        model: the model.
        data: the images.
        pretrain: how to pretrain.
        finetune: how to fine-tune.
        segmentation: what segmentation adds to it.
        pretrained: a run's workdir, or a file of Keras, the authors' code, timm or Transformers, to start from; empty
            for random weights.
        pretrained_stem: `load`, or for images of another number of channels than those of the pretrained weights
            `average` (over the channels) or `leave_out`.
        precision: `float32`, `mixed_bfloat16`, `mixed_float16` (with dynamic loss scaling), or `auto`: bfloat16 on GPUs
            of compute capability 8 and up, float16 on those of 7, float32 elsewhere.
        compile: what XLA compiles of a training step: `none`; `chains` of element-wise operations, while convolutions
            and matrix products are TensorFlow's; the whole `step`, forward and backward; `auto`: chains on CPUs, where
            the whole step is several times slower, and nothing on GPUs.
        distribution: `auto` (all GPUs), `none` (one device), `mirrored`, or `multiworker` (all GPUs of
            several processes, which TF_CONFIG or Slurm's variables name).
        logical_cpus: split the CPU into so many devices, to try distribution without GPUs; 0 does not.
        evaluation_batch_size: images that evaluation works on at a time, on each device; 0 for as many as take about 1
            GiB, at most 256. Figures do not depend on it, up to rounding, and not at all on the number of devices.
        log_every: steps between two lines of metrics.
        checkpoint_every: steps between two checkpoints; 0 counts none.
        checkpoint_minutes: minutes after which a checkpoint is due, besides those by steps; 0 for none. What comes of
            a run does not depend on it.
        keep_checkpoints: number of newest checkpoints that are kept.
        profile_steps: first and last step of a profile by TensorFlow, in `profile/` of the workdir; empty for none.
        tensorboard: write metrics and pictures for TensorBoard to `tensorboard/` in the workdir.
        wandb: log them to Weights & Biases as well.
    """

    seed: int = 0
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = dataclasses.field(default_factory=FinetuneConfig)
    segmentation: SegmentationConfig = dataclasses.field(default_factory=SegmentationConfig)
    pretrained: str = ""
    pretrained_stem: str = "load"
    precision: str = "auto"
    compile: str = "auto"
    distribution: str = "auto"
    logical_cpus: int = 0
    evaluation_batch_size: int = 0
    log_every: int = 20
    checkpoint_every: int = 500
    checkpoint_minutes: float = 0.0
    keep_checkpoints: int = 3
    profile_steps: tuple[int, ...] = ()
    tensorboard: bool = True
    wandb: WandbConfig = dataclasses.field(default_factory=WandbConfig)

    def __post_init__(self):
        super().__post_init__()
        require_one_of("precision", self.precision, ("auto", "float32", "mixed_bfloat16", "mixed_float16"))
        require_one_of("compile", self.compile, ("auto", "none", "chains", "step"))
        require_one_of("distribution", self.distribution, ("auto", "none", "mirrored", "multiworker"))
        require(
            self.distribution != "multiworker" or self.logical_cpus <= 1,
            "logical_cpus is for a single process: distribution=multiworker has one CPU device a worker.",
        )
        require_one_of("pretrained_stem", self.pretrained_stem, STEMS)
        for name, off in (("randaugment_magnitude", 0.0), ("color_jitter", (0.0, 0.0, 0.0, 0.0))):
            require(
                self.data.channels in (1, 3) or getattr(self.finetune, name) == off,
                f"finetune.{name} is for grey or colour images, and data.channels={self.data.channels}: leave it out.",
            )
        require_at_least("", self, 0, "seed", "logical_cpus", "evaluation_batch_size")
        require(self.seed < 2**32, f"seed is below 2**32, got {self.seed}.")
        require_at_least("", self, 0, "checkpoint_every", "checkpoint_minutes")
        require(
            self.checkpoint_every > 0 or self.checkpoint_minutes > 0,
            "checkpoint_every or checkpoint_minutes is above 0: a run without checkpoints cannot go on.",
        )
        require_at_least("", self, 1, "log_every", "keep_checkpoints")
        steps = self.profile_steps
        require(
            not steps or (len(steps) == 2 and 0 < steps[0] < steps[1]),
            f"profile_steps is the first step and a later last one, such as 10,20, got {steps}.",
        )
        try:
            patch_grid(*self.data.size, self.model.total_stride)
        except ValueError as error:
            raise UserError(f"data.image_size={self.data.image_size}: {error}") from error
        try:
            num_visible(self.num_patches, self.pretrain.mask_ratio)
        except ValueError as error:
            raise UserError(f"pretrain.{error}") from error

    @property
    def num_patches(self):
        """Number of patches of an image."""
        return math.prod(patch_grid(*self.data.size, self.model.total_stride))

    def evaluation_batch(self):
        """Returns how many images evaluation works on at a time, whatever the batch and the devices of training."""
        if self.evaluation_batch_size:
            return self.evaluation_batch_size
        height, width = self.data.size
        positions = height * width // self.model.stem_stride**2
        # Inside a block of the first stage: four times its channels, in float32, and about four such arrays at once.
        image_bytes = positions * 4 * self.model.stages[1][0] * 4 * 4
        return max(1, min(MOST_IN_EVALUATION, EVALUATION_BYTES // image_bytes))

    def to_dict(self):
        """Returns nested dictionaries of plain values."""
        return dataclasses.asdict(self)

    def to_config_dict(self):
        """Returns a `ConfigDict`, whose fields command-line flags can override."""
        values = self.to_dict()
        # A flag keeps the type of its field: a tuple takes one number, or two.
        values["data"]["image_size"] = tuple(dict.fromkeys(self.data.size))
        for name in ("mean", "std"):
            if values["data"][name] == AUTO:
                values["data"][name] = (AUTO,)
        return config_dict.ConfigDict(values)

    @classmethod
    def from_dict(cls, values):
        """Makes the configuration of nested mappings, such as a `ConfigDict` or `config.json`.

        Raises:
            UserError: if a field is unknown or its value is not allowed.
        """
        return from_mapping(cls, values, "")
