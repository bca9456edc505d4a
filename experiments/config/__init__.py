"""The typed configuration of a run: fields, defaults and validation.

A preset makes a `Config`; the command line overrides its fields (`--config.pretrain.epochs=50`). Sections are immutable
and validated on construction. Steps and peak rate, which depend on the data too, are computed in
`experiments.training.schedule`.
"""

import dataclasses
import math
import typing

from ml_collections import config_dict

from convnext.weights.loader import STEMS
from experiments.config.data import (
    AUTO,
    IMAGE_SETTINGS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LARGEST_NUMBER,
    MAX_PIXELS,
    SPLIT_FIELDS,
    DataConfig,
    height_and_width,
    kept_size,
    parse_size,
    size_text,
)
from experiments.config.model import ModelConfig
from experiments.config.section import Section, from_mapping, require
from experiments.config.training import CROPS, FinetuneConfig, PretrainConfig, SegmentationConfig, TrainingConfig
from experiments.errors import UserError
from fcmae.masking import num_visible, patch_grid

# Default limits of an evaluation batch on a device: images, and memory for the activations of a block.
MOST_IN_EVALUATION, EVALUATION_BYTES = 256, 2**30


@dataclasses.dataclass(frozen=True)
class WandbConfig(Section):
    """Weights & Biases.

    Args:
        mode: `disabled`, `offline` or `online`.
        project: project that the run appears in.
        name: name of the run; empty for the name of the workdir.
    """

    mode: str = "disabled"
    project: str = "fcmae"
    name: str = ""

    section: typing.ClassVar[str] = "wandb"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("mode", ("disabled", "offline", "online"))


@dataclasses.dataclass(frozen=True)
class Config(Section):
    """An experiment: one description for pretraining, fine-tuning and evaluation.

    Args:
        seed: seed of all random numbers.
        model: the model.
        data: the images.
        pretrain: how to pretrain.
        finetune: how to fine-tune.
        segmentation: additional fields of fine-tuning for segmentation.
        pretrained: a run's workdir, or a file or folder of weights (see docs/weights.md), to start from; empty
            for random weights.
        pretrained_stem: `load`; or, if the images have another number of channels than the pretrained weights,
            `average` (over the channels) or `leave_out`.
        precision: `float32`, `mixed_bfloat16`, `mixed_float16` (with dynamic loss scaling), or `auto`: bfloat16 on GPUs
            of compute capability 8 and up, float16 on those of 7, float32 elsewhere.
        compile: the parts of a training step that XLA compiles: `none`; `chains` of element-wise operations, while
            TensorFlow runs convolutions and matrix products; the whole `step`, forward and backward; `auto`: chains on
            CPUs, where the whole step is several times slower, and nothing on GPUs.
        distribution: `auto` (all GPUs), `none` (one device), `mirrored`, or `multiworker` (all GPUs of
            several processes, which TF_CONFIG or Slurm's variables name).
        logical_cpus: number of devices to split the CPU into, to try distribution without GPUs; 0 does not split it.
        evaluation_batch_size: images per evaluation step, on each device; 0 for as many as take about 1 GiB, at most
            256. Metrics do not depend on it, up to rounding, and not at all on the number of devices.
        log_every: steps between two lines of metrics.
        checkpoint_every: steps between two checkpoints; 0 for no checkpoints by steps.
        checkpoint_minutes: minutes between two further checkpoints, besides those by steps; 0 for none. It does not
            change the results of a run.
        keep_checkpoints: number of newest checkpoints that are kept.
        profile_steps: first and last step of a profile by TensorFlow, in `profile/` of the workdir; empty for none.
        tensorboard: write metrics and pictures for TensorBoard to `tensorboard/` in the workdir.
        wandb: logging to Weights & Biases.
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

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("precision", ("auto", "float32", "mixed_bfloat16", "mixed_float16"))
        self.require_one_of("compile", ("auto", "none", "chains", "step"))
        self.require_one_of("distribution", ("auto", "none", "mirrored", "multiworker"))
        require(
            self.distribution != "multiworker" or self.logical_cpus <= 1,
            "logical_cpus is for a single process: distribution=multiworker has one CPU per worker.",
        )
        self.require_one_of("pretrained_stem", STEMS)
        for name, off in (("randaugment_magnitude", 0.0), ("color_jitter", (0.0, 0.0, 0.0, 0.0))):
            require(
                self.data.channels in (1, 3) or getattr(self.finetune, name) == off,
                f"finetune.{name} is for grey or colour images, not data.channels={self.data.channels}: leave it out.",
            )
        self.require_at_least(0, "seed", "logical_cpus", "evaluation_batch_size")
        require(self.seed < 2**32, f"seed must be below 2**32, got {self.seed}.")
        self.require_at_least(0, "checkpoint_every", "checkpoint_minutes")
        require(
            self.checkpoint_every > 0 or self.checkpoint_minutes > 0,
            "checkpoint_every or checkpoint_minutes must be above 0: a run without checkpoints cannot be resumed.",
        )
        self.require_at_least(1, "log_every", "keep_checkpoints")
        steps = self.profile_steps
        require(
            not steps or (len(steps) == 2 and 0 < steps[0] < steps[1]),
            f"profile_steps must be (first, last) with 1 <= first < last, such as 10,20, got {steps}.",
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
    def num_patches(self) -> int:
        """Number of patches of an image."""
        return math.prod(patch_grid(*self.data.size, self.model.total_stride))

    def evaluation_batch(self) -> int:
        """Returns the images per evaluation step and device, whatever the batch and the devices of training."""
        if self.evaluation_batch_size:
            return self.evaluation_batch_size
        height, width = self.data.size
        positions = height * width // self.model.stem_stride**2
        # A block of the first stage holds about four float32 arrays of four times its channels at once.
        image_bytes = positions * 4 * self.model.stages[1][0] * 4 * 4
        return max(1, min(MOST_IN_EVALUATION, EVALUATION_BYTES // image_bytes))

    def to_dict(self) -> dict[str, typing.Any]:
        """Returns nested dictionaries of plain values."""
        return dataclasses.asdict(self)

    def to_config_dict(self) -> config_dict.ConfigDict:
        """Returns a `ConfigDict`, whose fields command-line flags can override."""
        values = self.to_dict()
        # A flag keeps the type of its field, and a tuple takes one number or two.
        values["data"]["image_size"] = tuple(dict.fromkeys(self.data.size))
        for name in ("mean", "std"):
            if values["data"][name] == AUTO:
                values["data"][name] = (AUTO,)
        return config_dict.ConfigDict(values)

    @classmethod
    def from_dict(cls, values: dict[str, typing.Any] | config_dict.ConfigDict) -> typing.Self:
        """Makes the configuration of nested mappings, such as a `ConfigDict` or `config.json`.

        Raises:
            UserError: if a field is unknown or its value is not allowed.
        """
        return from_mapping(cls, values, "")
