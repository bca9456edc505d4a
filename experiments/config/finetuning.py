"""The section of the configuration on fine-tuning."""

import dataclasses
import typing

from experiments.config.sections import require
from experiments.config.training import TrainingConfig


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
