"""Number of steps and learning rates, from a configuration and the number of images."""

import dataclasses
from typing import Self

from experiments.config import TrainingConfig
from experiments.errors import UserError

REFERENCE_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Number of steps and rates of a run.

    Args:
        steps_per_epoch: optimizer steps of an epoch; images that do not fill a last batch are left out.
        total_steps: optimizer steps of the run.
        warmup_steps: steps of the linear rise to the peak rate.
        peak_learning_rate: `base_learning_rate * batch_size / 256`.
    """

    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    peak_learning_rate: float

    @classmethod
    def of(cls, training: TrainingConfig, num_examples: int) -> Self:
        """Computes the schedule.

        Args:
            training: a `TrainingConfig`.
            num_examples: number of training images.

        Raises:
            UserError: if the images do not fill a batch, or the warmup takes the whole run.
        """
        section = training.section
        steps_per_epoch = num_examples // training.batch_size
        if not steps_per_epoch:
            raise UserError(
                f"{section}.batch_size={training.batch_size} is more than the {num_examples} training images: use "
                f"--config.{section}.batch_size={num_examples} or less."
            )
        total = training.steps or training.epochs * steps_per_epoch
        warmup = round(training.warmup_epochs * steps_per_epoch)
        if warmup >= total:
            raise UserError(
                f"{section}.warmup_epochs={training.warmup_epochs:g} ({warmup} steps) takes up the whole run of "
                f"{total} steps: use a shorter warmup, such as --config.{section}.warmup_epochs=0, or a longer run."
            )
        peak = training.base_learning_rate * training.batch_size / REFERENCE_BATCH
        return cls(steps_per_epoch, total, warmup, peak)
