"""What all studies share: what they are made for, and the runs and figures that they have in common."""

import dataclasses
import pathlib
import statistics
import typing

from experiments.config import Config
from experiments.studies.budgets import Budget, with_length
from experiments.studies.rates import Arm
from experiments.studies.trials import Pretraining, Probing


@dataclasses.dataclass(frozen=True)
class Study:
    """A question, and the trials that answer it.

    Args:
        root: its folder.
        config: the `Config` that its trials change parts of.
        budget: its `Budget`.
        seeds: of the repetitions; the first of them chooses rates.
        num_images: number of training images.
    """

    root: pathlib.Path
    config: Config
    budget: Budget
    seeds: tuple[int, ...]
    num_images: int

    name: typing.ClassVar[str]
    title: typing.ClassVar[str]

    def trials(self):
        """Yields the trials in the order in which they are worth most. What comes may depend on what is complete."""
        raise NotImplementedError

    def results(self):
        """Returns what the complete trials say, for the tables; plain values."""
        raise NotImplementedError

    def tables(self, results):
        """Returns the lines of the tables, as Markdown."""
        raise NotImplementedError

    def draw(self, results, path):
        """Draws the results, if there are any, to a PNG file."""
        raise NotImplementedError

    def pretraining(self, name, config, steps=None):
        """Returns the `Pretraining` of a configuration, which has the length of the budget or another one."""
        steps = steps or self.budget.pretraining_steps
        training = with_length(config.pretrain, steps, config.pretrain.batch_size, self.num_images)
        # Pictures and the loss on validation images at the end alone.
        config = dataclasses.replace(config, pretrain=dataclasses.replace(training, pictures=1, probe_every=0))
        return Pretraining(self.root, name, config, (), (steps, config.pretrain.batch_size))

    def arm(self, length, folder_of, config_of, pretraining_of=None):
        """Returns an `Arm`.

        Args:
            length: its `Length`.
            folder_of: function from a seed to the name of a folder.
            config_of: function from a seed to a `Config`.
            pretraining_of: function from a seed to the `Pretraining` that it starts from; None for random weights.
        """

        def start_of(seed):
            config = config_of(seed)
            start = str(pretraining_of(seed).folder) if pretraining_of else ""
            return dataclasses.replace(config, pretrained=start)

        num_examples = self.num_images if length.labels == "all" else int(length.labels)
        needs_of = (lambda seed: (pretraining_of(seed),)) if pretraining_of else (lambda seed: ())
        more = self.budget.more_rates
        return Arm(self.root, length, more, num_examples, folder_of, start_of, needs_of, self.seeds[0])

    def probing(self, name, config, labels, target, pretraining=None):
        """Returns the `Probing` of the encoder of a `Pretraining`, or of a random one."""
        config = dataclasses.replace(config, pretrained=str(pretraining.folder) if pretraining else "")
        needs = (pretraining,) if pretraining else ()
        return Probing(self.root, name, config, needs, labels, target)


def summary(values):
    """Returns what a table says of figures, `{values, mean, deviation}`.

    Args:
        values: `{seed: figure}`; None for those that are open.

    Returns:
        `mean` is None for no figure, `deviation`, that of a sample, for fewer than two.
    """
    known = {str(seed): value for seed, value in values.items() if value is not None}
    figures = list(known.values())
    return {
        "values": known,
        "mean": statistics.fmean(figures) if figures else None,
        "deviation": statistics.stdev(figures) if len(figures) > 1 else None,
    }


def difference(one, other):
    """Returns the `summary` of the differences of two, seed by seed."""
    seeds = [seed for seed in one["values"] if seed in other["values"]]
    return summary({seed: one["values"][seed] - other["values"][seed] for seed in seeds})


def shown(figures, signed=False):
    """Returns a `summary` as text: mean +- deviation."""
    if figures["mean"] is None:
        return ""
    mean = f"{figures['mean']:+.1f}" if signed else f"{figures['mean']:.1f}"
    return mean if figures["deviation"] is None else f"{mean} ± {figures['deviation']:.1f}"


def markdown_table(header, rows):
    """Returns the lines of a table, the first column to the left and the others to the right."""
    line = "| {} |".format
    rule = "|---|" + "---:|" * (len(header) - 1)
    return [line(" | ".join(header)), rule, *(line(" | ".join(row)) for row in rows)]
