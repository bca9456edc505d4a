"""The section of the configuration on fine-tuning."""

import dataclasses
import typing

from experiments.config.sections import require, require_at_least, require_one_of
from experiments.config.training import TrainingConfig
from experiments.optim.param_groups import GROUPS

CLASS_WEIGHTS = ("none", "balanced")


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
        layer_decay: factor of the learning rate from a layer to the one below it, in (0, 1]; 1 for one rate for all.
        layer_decay_groups: what a layer is: `single` a block, `group` three consecutive blocks; see `LayerDecay`.
        head_init_scale: by which the initial weights of the logits are multiplied. Weights that are loaded, by a run
            that goes on or of a pretrained classifier of as many classes, are not; the authors' code draws the logits'
            weights anew whatever it loads.
        ema_decay: decay of an exponential moving average of the weights that train; 0 for none. It begins with the
            weights that the run begins with and moves from the first step on, without a correction or warmup, as in
            the authors' code; so it needs many more steps than 1 / (1 - ema_decay).
        frozen_encoder: whether the encoder stays as it is, in inference mode, and the weights of the logits alone are
            learned: a linear probe. The normalization before them stays too; MAE's probe has one without parameters.
        report_test: whether the summary has the figures of the test images. False where settings are compared, so that
            nobody chooses by them; `launch.evaluate` gives them for the run that was chosen.
        class_weights: `none`, or `balanced`: each class has the same weight in the loss, however many images it has.
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
    layer_decay: float = 1.0
    layer_decay_groups: str = "single"
    head_init_scale: float = 0.001
    ema_decay: float = 0.0
    frozen_encoder: bool = False
    report_test: bool = True
    class_weights: str = "none"

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
        for name, allowed in (("layer_decay_groups", GROUPS), ("class_weights", CLASS_WEIGHTS)):
            require_one_of(f"finetune.{name}", getattr(self, name), allowed)
        if not self.frozen_encoder:
            return
        for name, off in (("drop_path_rate", 0.0), ("layer_decay", 1.0)):
            require(
                getattr(self, name) == off,
                f"finetune.frozen_encoder leaves nothing for finetune.{name}={getattr(self, name):g} to act on: add "
                f"--config.finetune.{name}={off:g}.",
            )
