"""Does pretraining pay? The same encoder with few labels and with many, pretrained and from scratch."""

import collections
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, cast

from matplotlib.figure import Figure

from experiments.studies.budgets import FEWER_LABELS, NATURAL_IMAGES, Length, best_rate, is_at_edge, try_rates
from experiments.studies.report import difference, shown, summary
from experiments.studies.study import ResultOf, Study, Trial
from experiments.types import Path

STARTS = ("pretrained", "scratch")
ENCODERS = ("pretrained", "random")
PROBES = {"linear": "linear probe", "knn": "k-NN"}
MEASURES = {"finetuned": STARTS, **dict.fromkeys(PROBES, ENCODERS)}
# Of Okabe and Ito's palette, which those who are blind to some colours can tell apart; the markers differ too.
STYLES = {
    ("finetuned", "pretrained"): ("fine-tuned, pretrained", "#0072B2", "o", "-"),
    ("finetuned", "scratch"): ("fine-tuned, from scratch", "#D55E00", "s", "-"),
    ("linear", "pretrained"): ("linear probe, pretrained", "#56B4E9", "^", "--"),
    ("linear", "random"): ("linear probe, random encoder", "#E69F00", "v", "--"),
}


class FewerLabels(Study):
    """Pretrains once a seed without labels; then fine-tunes, and probes frozen encoders, with more and more labels.

    Both starts of fine-tuning have the same steps, batches, labels and rates to choose among. The validation images
    choose the rate, and the recipe where the budget has several, with the first seed; the test images are read of what
    is chosen. The labels are drawn with the seed, and so are the initial weights.
    """

    name = "fewer_labels"
    title = "Top-1 on the test images by number of labels"
    budgets = FEWER_LABELS
    num_seeds = 3

    def collect(self, result_of: ResultOf) -> dict[str, Any]:
        """First all seeds with few labels, then more labels."""
        budget, tried = self.budget, {}
        found: dict[tuple, dict] = collections.defaultdict(dict)
        lengths = sorted(budget.few + budget.many, key=self.num_labels)

        def probe(length: Length, seed: int) -> None:
            for name in ENCODERS:
                encoder = self._pretraining(seed) if name == "pretrained" else None
                folder = f"seed_{seed}/labels_{length.labels}/probes/{name}"
                result = result_of(self.probing(folder, self.config, seed, encoder, length.labels, "test"))
                for kind in PROBES:
                    found[kind, name, length][seed] = result and result[kind]

        def fine_tune(length: Length, seed: int) -> None:
            if seed == self.seeds[0]:
                tried.update({(length, start): self._try(result_of, length, start) for start in STARTS})
            for start in STARTS:
                final = self._run(length, start, seed, *_best(tried[length, start]))
                result_of(final)
                result = result_of(self.testing(final))
                found["finetuned", start, length][seed] = result and result["test_top1"]

        for seed in self.seeds:
            result_of(self._pretraining(seed))
            for length in budget.few:
                fine_tune(length, seed)
                probe(length, seed)
        for length in budget.many:
            for seed in self.seeds:
                fine_tune(length, seed)
                probe(length, seed)

        rows = []
        for length in lengths:
            measures = {
                measure: {name: summary(found[measure, name, length]) for name in names}
                for measure, names in MEASURES.items()
            }
            row = {
                "labels": self.num_labels(length),
                "steps": length.steps,
                "batch_size": length.batch_size,
                "choice_steps": length.choice_steps or length.steps,
                "rates": {start: _rates(tried[length, start]) for start in STARTS},
                "gain": difference(*measures["finetuned"].values()),
            }
            rows.append({**row, **measures})
        return {"pretraining_steps": budget.pretraining_steps, "rows": rows}

    def _pretraining(self, seed: int) -> Trial:
        return self.pretraining(f"seed_{seed}/pretraining", self.config, seed)

    def _try(self, result_of: ResultOf, length: Length, start: str) -> dict[str, dict[float, float] | None]:
        """Returns `{recipe: {rate: top-1}}` with the first seed; a recipe has None while a result is open."""
        tried = {}
        for recipe in self._recipes(start):
            run = functools.partial(self._run, length, start, self.seeds[0], recipe, choosing=True)
            tried[recipe] = try_rates(result_of, run, length.rates, self.budget.more_rates)
        return tried

    def _run(
        self, length: Length, start: str, seed: int, recipe: str, rate: float | None, choosing: bool = False
    ) -> Trial:
        encoder = self._pretraining(seed) if start == "pretrained" else None
        changes = self._recipes(start).get(recipe, {})  # no recipe is chosen yet in a plan
        config = dataclasses.replace(self.config, finetune=dataclasses.replace(self.config.finetune, **changes))
        folder = "/".join(filter(None, (f"seed_{seed}/labels_{length.labels}/{start}", recipe)))
        return self.finetuning(folder, config, seed, length, rate, encoder, choosing)

    def _recipes(self, start: str) -> dict[str, dict[str, Any]]:
        return self.budget.recipes.get(start, {"": {}})

    def tables(self, results: Mapping[str, Any]) -> list[tuple[list, list]]:
        header = ["labels", *(f"fine-tuned, {start}" for start in STARTS), "gain"]
        header += [f"{name}, {encoder}" for name in PROBES.values() for encoder in ENCODERS]
        header_of_rates = ["labels, start", "peak rate", "top-1 on the validation images by rate"]
        header_of_rates += ["steps of these runs", "steps of the run"]
        cells, cells_of_rates = [], []
        for row in results["rows"]:
            labels = f"{row['labels']:,}"
            finetuned, *probed = ([shown(row[measure][name]) for name in names] for measure, names in MEASURES.items())
            if _has_figures(row):
                cells.append([labels, *finetuned, shown(row["gain"], signed=True), *sum(probed, [])])
            for start, rates in row["rates"].items():
                if rates:
                    tried = ", ".join(f"{rate}: {top1:.1f}" for rate, top1 in rates["tried"].items())
                    chosen = f"{rates['recipe']} {rates['chosen']:g}".strip()
                    edge = " (at the edge of what was tried)" if rates["at_edge"] else ""
                    steps = [f"{count:,} of {row['batch_size']}" for count in (row["choice_steps"], row["steps"])]
                    cells_of_rates.append([f"{labels}, {start}", f"{chosen}{edge}", tried, *steps])
        return [(header, cells), (header_of_rates, cells_of_rates)]

    def draw(self, results: Mapping[str, Any], path: Path) -> None:
        figure = Figure(figsize=(7, 4.8), layout="constrained")
        axis = figure.add_subplot()
        for (measure, name), (label, color, marker, line) in STYLES.items():
            points = [(row["labels"], row[measure][name]) for row in results["rows"] if row[measure][name]["values"]]
            if points:
                labels, figures = zip(*points)
                means, spreads = ([one[key] or 0.0 for one in figures] for key in ("mean", "std"))
                style: dict[str, Any] = {"color": color, "marker": marker, "linestyle": line, "capsize": 4}
                axis.errorbar(labels, means, spreads, label=label, **style)
        axis.set_xscale("log")
        counts = [row["labels"] for row in filter(_has_figures, results["rows"])]
        axis.set_xticks(counts, [f"{count:,}" for count in counts])
        axis.minorticks_off()
        axis.set_xlabel("labels")
        axis.set_ylabel("top-1 on the test images, %")
        axis.grid(alpha=0.3)
        if axis.has_data():
            figure.legend(frameon=False, loc="outside upper center", ncols=2)
        figure.savefig(path, dpi=120, format="png")


class NaturalImages(FewerLabels):
    """The same on CIFAR-10, where each start also chooses how much its images are augmented."""

    name = "natural_images"
    title = "Top-1 on CIFAR-10's test images"
    budgets = NATURAL_IMAGES


def _best(tried: Mapping[str, dict[float, float] | None]) -> tuple[str, float | None]:
    """Returns the recipe and rate with the highest top-1, of `{recipe: {rate: top-1}}`; no rate while one is open."""
    if None in tried.values():
        return "", None
    known = cast(Mapping[str, dict[float, float]], tried)
    recipe = max(known, key=lambda name: max(known[name].values()))
    return recipe, best_rate(known[recipe])


def _has_figures(row: Mapping[str, Any]) -> bool:
    """Whether a row of the results has a figure; numbers of labels whose runs are still to come have none."""
    return any(figures["values"] for measure in MEASURES for figures in row[measure].values())


def _rates(tried: Mapping[str, dict[float, float] | None]) -> dict[str, Any] | None:
    recipe, rate = _best(tried)
    if rate is None:
        return None
    known = cast(Mapping[str, dict[float, float]], tried)
    named = {f"{name} {rate:g}".strip(): top1 for name, rates in known.items() for rate, top1 in rates.items()}
    return {"recipe": recipe, "chosen": rate, "at_edge": is_at_edge(known[recipe]), "tried": named}
