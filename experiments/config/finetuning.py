"""The section of the configuration on fine-tuning."""

import dataclasses
import typing

from experiments.config.sections import require, require_at_least
from experiments.config.training import TrainingConfig


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(TrainingConfig):
    """Fine-tuning; the arguments of `TrainingConfig`, and:

    All augmentation but cropping and flipping is off by default. The paper's for its larger models: a RandAugment
    magnitude of 9, an erasing probability of 0.25, Mixup with 0.8, CutMix with 1.0, label smoothing of 0.1; for its
    smallest no Mixup and CutMix, and label smoothing of 0.2.

    Args:
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
    """

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

    section: typing.ClassVar[str] = "finetune"

    def __post_init__(self):
        super().__post_init__()
        for name in ("drop_path_rate", "dropout_rate", "label_smoothing"):
            require(0 <= getattr(self, name) < 1, f"finetune.{name} lies in [0, 1).")
        for name in ("erasing_probability", "mix_probability", "switch_probability"):
            require(0 <= getattr(self, name) <= 1, f"finetune.{name} lies in [0, 1].")
        require_at_least("finetune", self, 0, "randaugment_noise", "mixup_alpha", "cutmix_alpha")
        require(0 <= self.randaugment_magnitude <= 10, "finetune.randaugment_magnitude lies in [0, 10].")
        self._check_color_jitter()

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
