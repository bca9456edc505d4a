"""How long the runs of a study are, and among which rates they choose."""

import dataclasses

from experiments.training.schedule import REFERENCE_BATCH

WARMUP = 0.1  # share of the steps

# Peak rates of AdamW, two a decade; a grid is a few neighbours of them, and goes on here where its best is at an edge.
LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
GRID = (1e-3, 3e-3, 1e-2)
LOWER_GRID = (3e-4, 1e-3, 3e-3)


@dataclasses.dataclass(frozen=True)
class Length:
    """Fine-tuning with so many labels; the same for every arm.

    Args:
        labels: `finetune.labels`.
        steps: of a run.
        batch_size: images of a step.
        choice_steps: steps of the runs that choose a rate; 0 for those of a run.
        rates: peak rates to choose among at first, neighbours in `LADDER`.
    """

    labels: str
    steps: int
    batch_size: int
    choice_steps: int = 0
    rates: tuple[float, ...] = GRID


@dataclasses.dataclass(frozen=True)
class Budget:
    """The lengths of a study.

    Args:
        pretraining_steps: of each pretraining.
        few: `Length`s that come first, for all seeds.
        many: `Length`s that come after those.
        more_rates: how many rates beyond its grid an arm may try, as long as its best one is at an edge.
        subsets: number of choices of labels that each encoder of an ablation is fine-tuned on.
        probe_labels: with how many labels the frozen encoders of an ablation are scored.
    """

    pretraining_steps: int
    few: tuple[Length, ...]
    many: tuple[Length, ...] = ()
    more_rates: int = 2
    subsets: int = 1
    probe_labels: str = "all"

    @property
    def lengths(self):
        """All `Length`s."""
        return self.few + self.many


FEWER_LABELS = {
    "full": Budget(
        pretraining_steps=6300,
        few=(Length("600", 600, 64), Length("100", 400, 50, rates=LOWER_GRID)),
        many=(Length("all", 1260, 128, choice_steps=420), Length("6000", 600, 128)),
    ),
    "tiny": Budget(
        pretraining_steps=4,
        few=(Length("600", 3, 64), Length("100", 3, 50)),
        many=(Length("all", 4, 128, choice_steps=2),),
        more_rates=1,
    ),
}
ABLATIONS = {
    "full": Budget(pretraining_steps=1260, few=(Length("600", 300, 64),), subsets=3, probe_labels="6000"),
    "tiny": Budget(pretraining_steps=4, few=(Length("600", 3, 64),), subsets=2, more_rates=0),
}


def with_length(training, steps, batch_size, num_examples, peak_rate=None):
    """Returns a `TrainingConfig` with another length.

    Args:
        training: the `TrainingConfig`.
        steps: of the run; a tenth of them are warmup.
        batch_size: images of a step.
        num_examples: number of training images, which make an epoch.
        peak_rate: rate after the warmup; None for that of `training`.
    """
    values = {"steps": steps, "batch_size": batch_size, "evaluations": 0}
    values["warmup_epochs"] = WARMUP * steps / (num_examples // batch_size)
    if peak_rate is not None:
        values["base_learning_rate"] = peak_rate * REFERENCE_BATCH / batch_size
    return dataclasses.replace(training, **values)
