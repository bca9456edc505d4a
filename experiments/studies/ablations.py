"""Ablations: one part of the method after the other is changed; all figures are on the validation images."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.figure import Figure

from experiments.config import Config
from experiments.studies.budgets import ABLATIONS, METRIC, best_rate, try_rates
from experiments.studies.report import difference, shown, summary
from experiments.studies.study import ResultOf, Study, Trial
from experiments.types import Path

BASELINE = "baseline"
PROBES = {"linear": "linear probe", "knn": "k-NN"}
PAPER = "https://arxiv.org/abs/2301.00808"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A change of the baseline.

    Args:
        name: of its folder.
        label: for a reader; `{:g}` in it stands for the mask ratio of the study's configuration.
        section: of the configuration that it changes.
        changes: `{field: value}` of that.
        length: of pretraining, as a multiple of the baseline's; 0 for none at all.
    """

    name: str
    label: str
    section: str = "pretrain"
    changes: dict = dataclasses.field(default_factory=dict)
    length: float = 1.0

    def config_of(self, config: Config) -> Config:
        """Returns a `Config` with the changes."""
        section = dataclasses.replace(getattr(config, self.section), **self.changes)
        return dataclasses.replace(config, **{self.section: section})


AFTER_STEM = "masked after the stem alone, dense convolutions"
# In the order of what they are worth, if time is short.
VARIANTS = (
    Variant(BASELINE, "baseline: mask ratio {:g}, GRN, normalized targets, decoder of one block"),
    Variant("no_pretraining", "no pretraining", length=0.0),
    Variant("masked_after_stem", AFTER_STEM, "pretrain", {"masking": "after_stem"}),
    Variant("without_grn", "without GRN", "model", {"response_normalization": False}),
    Variant("mask_ratio_0.2", "mask ratio 0.2", "pretrain", {"mask_ratio": 0.2}),
    Variant("mask_ratio_0.9", "mask ratio 0.9", "pretrain", {"mask_ratio": 0.9}),
    Variant("targets_not_normalized", "targets not normalized", "pretrain", {"normalize_targets": False}),
    Variant("decoder_depth_2", "decoder of two blocks", "model", {"decoder_depth": 2}),
    Variant("mask_ratio_0.4", "mask ratio 0.4", "pretrain", {"mask_ratio": 0.4}),
    Variant("mask_ratio_0.75", "mask ratio 0.75", "pretrain", {"mask_ratio": 0.75}),
    Variant("half_as_long", "pretraining half as long", length=0.5),
    Variant("twice_as_long", "pretraining twice as long", length=2.0),
    Variant("version_1", "ConvNeXt V1: layer scale in place of GRN", "model", {"version": 1}),
)


# What the paper found, with where it stands: the variant that did better there, and the other one.
FINDINGS = {
    "pretraining helps": (BASELINE, "no_pretraining"),
    "sparse convolutions, not masking alone: 83.7% against 79.3% (section 3)": (BASELINE, "masked_after_stem"),
    "FCMAE needs GRN (section 4)": (BASELINE, "without_grn"),
    "with FCMAE, version 2 is better than version 1": (BASELINE, "version_1"),
    "hiding 0.6 of the patches is better than hiding few": (BASELINE, "mask_ratio_0.2"),
    "hiding 0.6 of the patches is better than hiding nearly all": (BASELINE, "mask_ratio_0.9"),
    "targets are normalized patch by patch (section 3)": (BASELINE, "targets_not_normalized"),
    "one block of decoder is enough (section 3)": (BASELINE, "decoder_depth_2"),
    "longer pretraining helps": ("twice_as_long", BASELINE),
}
AS_GOOD = "one block of decoder is enough (section 3)"  # the one that needs no difference


def compare(rows: Iterable[Mapping[str, Any]], better: str, other: str, as_good: bool = False) -> dict[str, Any]:
    """Returns how two variants compare, `{pair, difference, verdict}`, by the fine-tuned top-1 of the same labels.

    The verdict is `as in the paper`, `differs`, or `not settled` where the difference is within the standard error of
    its mean, twice; None as long as figures are missing.

    Args:
        rows: of the results.
        better: name of the variant that did better in the paper.
        other: name of the other one.
        as_good: whether the paper found no more than that the first is about as good.
    """
    figures = {row["name"]: row["finetuned"] for row in rows}
    gap = difference(figures[better], figures[other])
    if gap["std"] is None:
        verdict = None
    elif abs(gap["mean"]) > 2 * gap["std"] / len(gap["values"]) ** 0.5:
        verdict = "as in the paper" if gap["mean"] > 0 else "differs"
    else:
        verdict = "as in the paper" if as_good else "not settled"
    return {"pair": [better, other], "difference": gap, "verdict": verdict}


class Ablations(Study):
    """Pretrains the baseline and its variants once a seed; probes, and fine-tunes on the same choices of few labels.

    Each variant chooses its own rate, on the first choice of labels.
    """

    name = "ablations"
    title = "Top-1 on the validation images"
    budgets = ABLATIONS
    num_seeds = 1

    def collect(self, result_of: ResultOf) -> dict[str, Any]:
        """Seed by seed, and variant by variant."""
        found: dict[str, dict[str, dict]] = {
            variant.name: {"rates": {}, "finetuned": {}, "linear": {}, "knn": {}} for variant in VARIANTS
        }
        for seed in self.seeds:
            for variant in VARIANTS:
                self._collect(variant, seed, found[variant.name], result_of)
        rows = []
        for variant in VARIANTS:
            label = variant.label.format(self.config.pretrain.mask_ratio)
            row = {"name": variant.name, "label": label, "pretraining_steps": self._steps(variant)}
            row["rates"] = found[variant.name].pop("rates")
            rows.append({**row, **{measure: summary(figures) for measure, figures in found[variant.name].items()}})
        (length,), labels = self.budget.few, self.budget.probe_labels
        return {
            "labels": length.labels,
            "steps": length.steps,
            "probe_labels": f"{int(labels):,}" if labels.isdecimal() else labels,
            "rows": rows,
            "findings": [
                {"text": text, **compare(rows, *pair, as_good=text == AS_GOOD)} for text, pair in FINDINGS.items()
            ],
        }

    def _collect(self, variant: Variant, seed: int, found: dict[str, dict], result_of: ResultOf) -> None:
        """Adds what is known of a variant with a seed to `{measure: {seed: figure}}`."""
        config, folder = variant.config_of(self.config), f"{variant.name}/seed_{seed}"
        (length,), labels = self.budget.few, self.budget.probe_labels
        encoder = None
        if variant.length:
            encoder = self.pretraining(f"{folder}/pretraining", config, seed, self._steps(variant))
            result_of(encoder)

        def run(subset: int, rate: float | None, choosing: bool = False) -> Trial:
            return self.finetuning(f"{folder}/subset_{subset}", config, subset, length, rate, encoder, choosing)

        choosing = functools.partial(run, 0, choosing=True)
        rate = best_rate(try_rates(result_of, choosing, length.rates, self.budget.more_rates))
        found["rates"][str(seed)] = rate
        for subset in range(self.budget.subsets):
            final = run(subset, rate)
            result = result_of(final)
            found["finetuned"][f"{seed}/{subset}"] = None if final.has_diverged else result and result[METRIC]
        result = result_of(self.probing(f"{folder}/probes", config, seed, encoder, labels, "validation"))
        for probe in PROBES:
            found[probe][seed] = result and result[probe]

    def _steps(self, variant: Variant) -> int:
        return round(variant.length * self.budget.pretraining_steps)

    def tables(self, results: Mapping[str, Any]) -> list[tuple[list, list]]:
        header = ["variant", f"fine-tuned, {results['labels']} labels", "against the baseline"]
        header += [f"{name}, {results['probe_labels']} labels" for name in PROBES.values()]
        header += ["steps of pretraining", "peak rate"]
        cells = []
        for row in filter(_has_figures, results["rows"]):
            gap = difference(row["finetuned"], results["rows"][0]["finetuned"])
            gain = shown(gap, signed=True) if row["name"] != BASELINE else ""
            rates = ", ".join(dict.fromkeys(f"{rate:g}" for rate in row["rates"].values() if rate))
            probed = [shown(row[probe]) for probe in PROBES]
            cells.append([row["label"], shown(row["finetuned"]), gain, *probed, f"{row['pretraining_steps']:,}", rates])
        found = [
            [finding["text"], shown(finding["difference"], signed=True), finding["verdict"] or "open"]
            for finding in results["findings"]
            if finding["difference"]["values"]
        ]
        header_of_findings = [f"[the paper]({PAPER})", "difference here, fine-tuned", "verdict"]
        return [(header, cells), (header_of_findings, found)]

    def draw(self, results: Mapping[str, Any], path: Path) -> None:
        rows = [row for row in results["rows"] if row["finetuned"]["values"]][::-1]
        figure = Figure(figsize=(9, 1.4 + 0.36 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        places = range(len(rows))
        means, spreads = ([row["finetuned"][key] or 0.0 for row in rows] for key in ("mean", "std"))
        left.errorbar(means, places, None, spreads, "o", color="#0072B2", capsize=3)
        for probe, color, marker in (("linear", "#D55E00", "s"), ("knn", "#009E73", "^")):
            known = [(row[probe]["mean"], place) for row, place in zip(rows, places) if row[probe]["values"]]
            right.plot(*(zip(*known) if known else ((), ())), marker, color=color, label=PROBES[probe])
        left.set_yticks(places, [row["label"].partition(":")[0] for row in rows], fontsize=8)
        left.set_xlabel(f"fine-tuned with {results['labels']} labels, top-1 in %", fontsize=9)
        right.set_xlabel(f"frozen encoder, {results['probe_labels']} labels, top-1 in %", fontsize=9)
        left.margins(y=0.5 / max(1, len(rows)))
        figure.legend(frameon=False, fontsize=8, loc="outside upper right", ncols=2)
        for axis in (left, right):
            axis.grid(alpha=0.3)
        figure.savefig(path, dpi=120, format="png")


def _has_figures(row: Mapping[str, Any]) -> bool:
    """Whether a row of the results has a figure; variants whose trials are still to come have none."""
    return any(row[measure]["values"] for measure in ("finetuned", *PROBES))
