"""The typed configuration of an experiment: fields, defaults, validation.

A preset makes a `Config`; the command line overrides fields of it (`--config.pretrain.epochs=50`). Everything is
validated when it is made and never changed afterwards. What follows from the configuration and the data
together (steps, peak rate) is computed in `experiments.training.plan`.
"""

import dataclasses
import typing

from ml_collections import config_dict

from convnext.convnext_v2 import ConvNeXtV2
from experiments.errors import UserError
from experiments.sections import Section, from_mapping, require, require_at_least
from fcmae.masking import num_visible, patch_grid

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section):
    """The encoder and the decoder.

    Args:
        variant: published size; `depths` and `dims` take its place where given.
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
        stem_stride: side in pixels of the patches of the stem; 4 in the published models.
        decoder_dim: channels of the decoder.
        decoder_depth: blocks of the decoder.
    """

    variant: str = "atto"
    depths: tuple[int, ...] = ()
    dims: tuple[int, ...] = ()
    stem_stride: int = 4
    decoder_dim: int = 512
    decoder_depth: int = 1

    section: typing.ClassVar[str] = "model"

    def __post_init__(self):
        super().__post_init__()
        require(
            self.variant in ConvNeXtV2.MODEL_VARIANTS,
            f"model.variant={self.variant!r} is not one of {', '.join(ConvNeXtV2.MODEL_VARIANTS)}.",
        )
        require(
            len(self.depths) == len(self.dims),
            f"model.depths={self.depths} and model.dims={self.dims} need one number for each stage.",
        )
        require_at_least("model", self, 1, "stem_stride", "decoder_dim", "decoder_depth")
        require(min(self.depths + self.dims, default=1) > 0, "model.depths and model.dims are numbers above 0.")

    @property
    def stages(self):
        """`(depths, dims)` of the encoder."""
        size = ConvNeXtV2.MODEL_VARIANTS[self.variant]
        return (self.depths, self.dims) if self.depths else (size.depths, size.dims)

    @property
    def total_stride(self):
        """Side in pixels of a patch."""
        return self.stem_stride * 2 ** (len(self.stages[0]) - 1)


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
        require(0 < self.evaluation_crop <= 1, "data.evaluation_crop lies in (0, 1].")
        for name in ("validation_share", "test_share"):
            require(0 <= getattr(self, name) < 1, f"data.{name} lies in [0, 1).")
        require(
            self.validation_share + self.test_share < 1, "data.validation_share and data.test_share leave no image."
        )
        require_at_least("data", self, 1, "image_size", "shuffle_buffer")


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Section):
    """What pretraining and fine-tuning share.

    Args:
        epochs: length of the run.
        steps: length of the run in steps instead, where above 0.
        batch_size: images of one optimizer step, over all devices and accumulation steps.
        accumulation_steps: parts in which a device works through its share of a batch, to need less memory.
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
        normalize_targets: whether target patches are normalized by their own mean and variance.
        pictures: number of pictures of reconstructions over a run, evenly spaced, at most one an epoch; the last
            is at the end.
    """

    beta_2: float = 0.95
    mask_ratio: float = 0.6
    normalize_targets: bool = True
    pictures: int = 5

    section: typing.ClassVar[str] = "pretrain"

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self.section, self, 0, "pictures")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(TrainingConfig):
    """Fine-tuning; the arguments of `TrainingConfig`, and:

    Args:
        labels: which labelled images are used: `all`, a number of them (`100`), a share (`1%`), or
            `10 per class`; drawn with the seed and balanced over the classes.
        drop_path_rate: stochastic depth rate of the last block.
        dropout_rate: of the pooled features.
        label_smoothing: share of the target that is spread over all classes.
    """

    labels: str = "all"
    drop_path_rate: float = 0.0
    dropout_rate: float = 0.0
    label_smoothing: float = 0.0

    section: typing.ClassVar[str] = "finetune"

    def __post_init__(self):
        super().__post_init__()
        for name in ("drop_path_rate", "dropout_rate", "label_smoothing"):
            require(0 <= getattr(self, name) < 1, f"finetune.{name} lies in [0, 1).")


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
        require(
            self.mode in ("disabled", "offline", "online"),
            f"wandb.mode={self.mode!r} is not one of disabled, offline, online.",
        )


@dataclasses.dataclass(frozen=True)
class Config(Section):
    """An experiment: one description for pretraining, fine-tuning and evaluation.

    Args:
        seed: everything random follows from it.
        model: the model.
        data: the images.
        pretrain: how to pretrain.
        finetune: how to fine-tune.
        pretrained: a run's workdir or a `.keras` file to start from; empty for random weights.
        precision: `auto` (bfloat16 on GPUs made for it, float32 elsewhere), `float32` or `mixed_bfloat16`.
        distribution: `auto` (all GPUs), `none` (one device) or `mirrored`.
        logical_cpus: split the CPU into so many devices, to try distribution without GPUs; 0 does not.
        log_every: steps between two lines of metrics.
        checkpoint_every: steps between two checkpoints.
        keep_checkpoints: number of newest checkpoints that are kept.
        wandb: tracking.
    """

    seed: int = 0
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = dataclasses.field(default_factory=FinetuneConfig)
    pretrained: str = ""
    precision: str = "auto"
    distribution: str = "auto"
    logical_cpus: int = 0
    log_every: int = 20
    checkpoint_every: int = 500
    keep_checkpoints: int = 3
    wandb: WandbConfig = dataclasses.field(default_factory=WandbConfig)

    def __post_init__(self):
        super().__post_init__()
        require(self.precision in ("auto", "float32", "mixed_bfloat16"), f"precision={self.precision!r} is unknown.")
        require(
            self.distribution in ("auto", "none", "mirrored"),
            f"distribution={self.distribution!r} is not one of auto, none, mirrored.",
        )
        require_at_least("", self, 0, "seed", "logical_cpus")
        require(self.seed < 2**32, f"seed is below 2**32, got {self.seed}.")
        require_at_least("", self, 1, "log_every", "checkpoint_every", "keep_checkpoints")
        try:
            rows, columns = patch_grid(self.data.image_size, self.data.image_size, self.model.total_stride)
        except ValueError as error:
            raise UserError(f"data.image_size={self.data.image_size}: {error}") from error
        try:
            num_visible(rows * columns, self.pretrain.mask_ratio)
        except ValueError as error:
            raise UserError(f"pretrain.{error}") from error

    @property
    def num_patches(self):
        """Number of patches of an image."""
        return (self.data.image_size // self.model.total_stride) ** 2

    def to_dict(self):
        """Returns nested dictionaries of plain values."""
        return dataclasses.asdict(self)

    def to_config_dict(self):
        """Returns a `ConfigDict`, whose fields command-line flags can override."""
        return config_dict.ConfigDict(self.to_dict())

    @classmethod
    def from_dict(cls, values):
        """Makes the configuration of nested mappings, such as a `ConfigDict` or `config.json`.

        Raises:
            UserError: if a field is unknown or its value is not allowed.
        """
        return from_mapping(cls, values, "")
