"""The whole configuration: its sections, and what concerns all of them."""

import dataclasses
import typing

from ml_collections import config_dict

from convnext.weights.loader import STEMS
from experiments.config.data import DataConfig
from experiments.config.finetuning import FinetuneConfig
from experiments.config.model import ModelConfig
from experiments.config.sections import Section, from_mapping, require, require_at_least, require_one_of
from experiments.config.training import PretrainConfig
from experiments.errors import UserError
from fcmae.masking import num_visible, patch_grid

MOST_IN_EVALUATION = 256  # images that one device evaluates at a time unless told otherwise


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
        pretrained: a run's workdir, or a file of Keras, the authors' code, timm or Transformers, to start from; empty
            for random weights.
        pretrained_stem: `load`, or for images of another number of channels than those of the pretrained weights
            `average` (over the channels) or `leave_out`.
        precision: `auto` (bfloat16 on GPUs made for it, float32 elsewhere), `float32` or `mixed_bfloat16`.
        distribution: `auto` (all GPUs), `none` (one device), `mirrored`, or `multiworker` (all GPUs of
            several processes, which TF_CONFIG or Slurm's variables name).
        logical_cpus: split the CPU into so many devices, to try distribution without GPUs; 0 does not.
        evaluation_batch_size: images that evaluation works on at a time, on one device; 0 for as many as a device takes
            at a time in training, at most 256. Figures do not depend on it, up to rounding.
        log_every: steps between two lines of metrics.
        checkpoint_every: steps between two checkpoints; 0 counts none.
        checkpoint_minutes: minutes after which a checkpoint is due, besides those by steps; 0 for none. What comes of
            a run does not depend on it.
        keep_checkpoints: number of newest checkpoints that are kept.
        wandb: tracking.
    """

    seed: int = 0
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    pretrain: PretrainConfig = dataclasses.field(default_factory=PretrainConfig)
    finetune: FinetuneConfig = dataclasses.field(default_factory=FinetuneConfig)
    pretrained: str = ""
    pretrained_stem: str = "load"
    precision: str = "auto"
    distribution: str = "auto"
    logical_cpus: int = 0
    evaluation_batch_size: int = 0
    log_every: int = 20
    checkpoint_every: int = 500
    checkpoint_minutes: float = 0.0
    keep_checkpoints: int = 3
    wandb: WandbConfig = dataclasses.field(default_factory=WandbConfig)

    def __post_init__(self):
        super().__post_init__()
        require_one_of("precision", self.precision, ("auto", "float32", "mixed_bfloat16"))
        require_one_of("distribution", self.distribution, ("auto", "none", "mirrored", "multiworker"))
        require(
            self.distribution != "multiworker" or self.logical_cpus <= 1,
            "logical_cpus is for a single process: distribution=multiworker has one CPU device a worker.",
        )
        require_one_of("pretrained_stem", self.pretrained_stem, STEMS)
        require_at_least("", self, 0, "seed", "logical_cpus", "evaluation_batch_size")
        require(self.seed < 2**32, f"seed is below 2**32, got {self.seed}.")
        require_at_least("", self, 0, "checkpoint_every", "checkpoint_minutes")
        require(
            self.checkpoint_every > 0 or self.checkpoint_minutes > 0,
            "checkpoint_every or checkpoint_minutes is above 0: a run without checkpoints cannot go on.",
        )
        require_at_least("", self, 1, "log_every", "keep_checkpoints")
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

    def evaluation_batch(self, training, num_devices=1):
        """Returns how many images evaluation works on at a time.

        Args:
            training: `pretrain` or `finetune`, the section of the task that the model is of.
            num_devices: devices that the training batch is divided among.
        """
        at_once = training.batch_size // (training.accumulation_steps * num_devices)
        return self.evaluation_batch_size or min(at_once, MOST_IN_EVALUATION)

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
