"""The section of the configuration on pretraining, and what it shares with fine-tuning."""

import dataclasses
import typing

from experiments.config.sections import Section, require, require_at_least, require_one_of
from fcmae.encoder import EXECUTIONS

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
        require_one_of(f"{self.section}.crop", self.crop, ("auto", "resized", "padded"))
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
