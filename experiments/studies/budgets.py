"""Lengths of the runs of a study, and the learning rates that they try."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from experiments.studies.study import ResultOf, Trial

METRIC = "validation_top1"  # by which a rate is chosen

# Peak rates of AdamW, two a decade; a grid is a few neighbours of them, and goes on here where its best is at an edge.
LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
GRID = (1e-3, 3e-3, 1e-2)
LOWER_GRID = (3e-4, 1e-3, 3e-3)


@dataclasses.dataclass(frozen=True)
class Length:
    """Fine-tuning with so many labels; the same for every start.

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
        more_rates: how many rates beyond its grid a start may try, as long as its best one is at an edge.
        subsets: number of choices of labels that each encoder of an ablation is fine-tuned on.
        probe_labels: with how many labels the frozen encoders of an ablation are scored.
        recipes: `{start: {name: {field: value}}}`, changes of `FinetuneConfig` that a start chooses among together
            with the rate; a start without any has the configuration as it is.
    """

    pretraining_steps: int
    few: tuple[Length, ...]
    many: tuple[Length, ...] = ()
    more_rates: int = 2
    subsets: int = 1
    probe_labels: str = "all"
    recipes: dict = dataclasses.field(default_factory=dict)

    def extends(self, other: "Budget") -> bool:
        """Whether it has all `Length`s of another budget, perhaps more, and is the same otherwise."""
        lengths, known = self.few + self.many, other.few + other.many
        return set(known) <= set(lengths) and dataclasses.replace(other, few=self.few, many=self.many) == self

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Returns the budget that `dataclasses.asdict` gave, also where JSON has made lists of its tuples."""
        few, many = (
            tuple(Length(**{**length, "rates": tuple(length["rates"])}) for length in values[name])
            for name in ("few", "many")
        )
        return cls(**{**values, "few": few, "many": many})


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
# From scratch all layers have one rate, and the decay is that of the paper's supervised training.
FROM_SCRATCH = {"layer_decay": 1.0, "weight_decay": 0.05}
LIGHT = {"randaugment_magnitude": 0.0, "erasing_probability": 0.0, "label_smoothing": 0.1}
RECIPES = {
    "pretrained": {"strong": {}, "light": LIGHT},
    "scratch": {"strong": FROM_SCRATCH, "light": {**FROM_SCRATCH, **LIGHT}},
}
NATURAL_IMAGES = {
    "full": Budget(
        pretraining_steps=4212,
        few=(Length("1000", 1000, 64, choice_steps=400),),
        many=(
            Length("all", 2800, 128, choice_steps=300),
            Length("250", 600, 64, choice_steps=300),
            Length("4000", 2000, 64, choice_steps=600),
        ),
        more_rates=1,
        recipes=RECIPES,
    ),
    "tiny": Budget(pretraining_steps=4, few=(Length("100", 3, 50),), more_rates=0, recipes=RECIPES),
}
ABLATIONS = {
    "full": Budget(pretraining_steps=1260, few=(Length("600", 300, 64),), subsets=3, probe_labels="6000"),
    "tiny": Budget(pretraining_steps=4, few=(Length("600", 3, 64),), subsets=2, more_rates=0),
}


def try_rates(
    result_of: "ResultOf", run_of: Callable[[float], "Trial"], rates: Sequence[float], more_rates: int
) -> dict[float, float] | None:
    """Tries peak rates: those of a grid and, while the best is at the edge of those tried, the ones beyond.

    Args:
        result_of: function from a trial to its result, None while it is open.
        run_of: function from a rate to the trial of fine-tuning with it.
        rates: the grid.
        more_rates: largest number of rates beyond it.

    Returns:
        `{rate: top-1 on the validation images}`, ascending; None while a result is open.
    """
    results: dict[float, Any] = {rate: result_of(run_of(rate)) for rate in rates}
    while None not in results.values():
        tried = {rate: results[rate][METRIC] for rate in sorted(results)}
        beyond = rate_beyond(tried)
        if beyond is None or len(tried) == len(rates) + more_rates:
            return tried
        results[beyond] = result_of(run_of(beyond))
    return None


def best_rate(tried: Mapping[float, float] | None) -> float | None:
    """Returns the rate of `{rate: top-1}` with the highest top-1, the lowest of equals; None while it is open."""
    return max(tried, key=lambda rate: (tried[rate], -rate)) if tried else None


def is_at_edge(tried: Mapping[float, float]) -> bool:
    """Whether the best rate is the lowest or the highest of those tried, so that one beyond might be better."""
    return best_rate(tried) in (min(tried), max(tried))


def rate_beyond(tried: Mapping[float, float]) -> float | None:
    """Returns the rate of `LADDER` beyond the edge that the best one is at; None if it is at none, or the last."""
    if not is_at_edge(tried):
        return None
    place = LADDER.index(cast(float, best_rate(tried))) + (1 if best_rate(tried) == max(tried) else -1)
    return LADDER[place] if 0 <= place < len(LADDER) else None
