"""Choosing a learning rate on the validation images."""

import dataclasses
import pathlib
import typing

from experiments.studies.budgets import LADDER, Length, with_length
from experiments.studies.trials import Finetuning, Testing

METRIC = "validation_top1"


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a search came to.

    Args:
        tried: `{peak rate: top-1 on the validation images}`, ascending.
    """

    tried: dict

    @property
    def rate(self):
        """The rate with the highest top-1; the lowest of equals."""
        return max(self.tried, key=lambda rate: (self.tried[rate], -rate))

    @property
    def is_at_edge(self):
        """Whether it is the lowest or the highest that was tried, so that one beyond might be better."""
        return self.rate in (min(self.tried), max(self.tried))


def rate_beyond(choice):
    """Returns the rate of `LADDER` beyond the edge that the best one is at; None if it is at none, or the last."""
    if not choice.is_at_edge:
        return None
    place = LADDER.index(choice.rate) + (1 if choice.rate == max(choice.tried) else -1)
    return LADDER[place] if 0 <= place < len(LADDER) else None


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to fine-tune with so many labels: its runs of several rates, and with the best of them of several seeds.

    The first seed chooses; the test images are read of the rate that is chosen, and of no other.

    Args:
        root: folder of the study.
        length: the `Length`.
        more_rates: see `Budget`.
        num_examples: number of images that the labels name.
        folder_of: function from a seed to the name of the folder for its runs.
        config_of: function from a seed to the `Config`, whose section on fine-tuning it completes.
        needs_of: function from a seed to the trials that have to be complete before.
        first_seed: the seed that chooses.
    """

    root: pathlib.Path
    length: Length
    more_rates: int
    num_examples: int
    folder_of: typing.Callable
    config_of: typing.Callable
    needs_of: typing.Callable = lambda seed: ()
    first_seed: int = 0

    def searching(self):
        """Yields the trials that choose, as long as the results so far ask for another one."""
        rates = list(self.length.rates)
        for rate in rates:
            yield self._run(self.first_seed, rate, choosing=True)
        for _ in range(self.more_rates):
            choice = self._choice_among(rates)
            if choice is None or (beyond := rate_beyond(choice)) is None:
                return
            yield self._run(self.first_seed, beyond, choosing=True)
            rates = sorted([*rates, beyond])

    @property
    def choice(self):
        """The `Choice`; None as long as it is open."""
        trials = list(self.searching())
        if not all(trial.is_complete for trial in trials):
            return None
        return Choice(dict(sorted((trial.peak_rate, trial.result[METRIC]) for trial in trials)))

    def final(self, seed):
        """Returns the `Finetuning` of a seed with the rate that is chosen; before that it has no configuration."""
        choice = self.choice
        return self._run(seed, choice and choice.rate)

    def testing(self, seed):
        """Returns the `Testing` of that."""
        final = self.final(seed)
        return Testing(self.root, final.name, final.config, (final,))

    def _choice_among(self, rates):
        results = {rate: self._run(self.first_seed, rate, choosing=True).result for rate in rates}
        return None if None in results.values() else Choice({rate: results[rate][METRIC] for rate in rates})

    def _run(self, seed, rate, choosing=False):
        length = self.length
        steps = (choosing and length.choice_steps) or length.steps
        prefix = "short_" if steps != length.steps else ""
        name = f"{self.folder_of(seed)}/{prefix}rate_{rate:g}" if rate else f"{self.folder_of(seed)}/chosen_rate"
        config = None
        if rate:
            config = self.config_of(seed)
            training = dataclasses.replace(config.finetune, labels=length.labels, report_test=False)
            training = with_length(training, steps, length.batch_size, self.num_examples, rate)
            config = dataclasses.replace(config, finetune=training)
        # The run that will be chosen is one of those that choose, unless they are shorter.
        new = rate or seed != self.first_seed or length.choice_steps
        size = (steps, length.batch_size) if new else (0, 0)
        return RatedFinetuning(self.root, name, config, self.needs_of(seed), size, peak_rate=rate)


@dataclasses.dataclass(frozen=True)
class RatedFinetuning(Finetuning):
    """A `Finetuning` that knows its peak rate."""

    peak_rate: float | None = None
