"""What of the method matters? One part after the other is changed; all figures are those of the validation images."""

import dataclasses
import typing

from matplotlib.figure import Figure

from experiments.studies.study import Study, difference, markdown_table, shown, summary

BASELINE = "baseline"
SCORES = {"finetuned": "fine-tuned", "linear": "linear probe", "knn": "k-NN"}
PAPER = "https://arxiv.org/abs/2301.00808"


@dataclasses.dataclass(frozen=True)
class Variant:
    """A change of the baseline.

    Args:
        name: of its folder.
        label: for a reader.
        changes: `{section: {field: value}}` of the configuration.
        length: of pretraining, as a multiple of the baseline's; 0 for none at all.
    """

    name: str
    label: str
    changes: typing.Mapping = dataclasses.field(default_factory=dict)
    length: float = 1.0

    def config_of(self, config):
        """Returns a `Config` with the changes."""
        sections = {name: dataclasses.replace(getattr(config, name), **to) for name, to in self.changes.items()}
        return dataclasses.replace(config, **sections)


def _mask_ratio(ratio):
    return Variant(f"mask_ratio_{ratio:g}", f"mask ratio {ratio:g}", {"pretrain": {"mask_ratio": ratio}})


# In the order of what they are worth, if time is short.
VARIANTS = (
    Variant(BASELINE, "baseline: mask ratio 0.6, GRN, normalized targets, decoder of one block"),
    Variant("no_pretraining", "no pretraining", length=0.0),
    Variant(
        "masked_after_stem", "masked after the stem alone, dense convolutions", {"pretrain": {"masking": "after_stem"}}
    ),
    Variant("without_grn", "without GRN", {"model": {"response_normalization": False}}),
    _mask_ratio(0.2),
    _mask_ratio(0.9),
    Variant("targets_not_normalized", "targets not normalized", {"pretrain": {"normalize_targets": False}}),
    Variant("decoder_depth_2", "decoder of two blocks", {"model": {"decoder_depth": 2}}),
    _mask_ratio(0.4),
    _mask_ratio(0.75),
    Variant("half_as_long", "pretraining half as long", length=0.5),
    Variant("twice_as_long", "pretraining twice as long", length=2.0),
    Variant("version_1", "ConvNeXt V1: layer scale in place of GRN", {"model": {"version": 1}}),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """What the paper found of two variants.

    Args:
        text: the finding, with where it stands.
        better: name of the variant that did better there, or as well.
        other: name of the other one.
        as_good: whether the paper found no more than that both are about as good.
    """

    text: str
    better: str
    other: str
    as_good: bool = False

    def compare(self, rows):
        """Returns how ours compare, `{text, difference, verdict}`, by the fine-tuned top-1 of the same labels.

        The verdict is `as in the paper`, `differs`, or `not settled` where the difference is within the standard
        error of its mean, twice; None as long as figures are missing.
        """
        figures = {row["name"]: row["finetuned"] for row in rows}
        gap = difference(figures[self.better], figures[self.other])
        verdict = None
        if gap["deviation"] is not None:
            error = 2 * gap["deviation"] / len(gap["values"]) ** 0.5
            settled = abs(gap["mean"]) > error
            if self.as_good:
                verdict = "as in the paper" if not settled or gap["mean"] > 0 else "differs"
            else:
                verdict = "not settled" if not settled else "as in the paper" if gap["mean"] > 0 else "differs"
        return {"text": self.text, "pair": [self.better, self.other], "difference": gap, "verdict": verdict}


FINDINGS = (
    Finding("pretraining helps", BASELINE, "no_pretraining"),
    Finding("sparse convolutions, not masking alone: 83.7% against 79.3% (section 3)", BASELINE, "masked_after_stem"),
    Finding("FCMAE needs GRN (section 4)", BASELINE, "without_grn"),
    Finding("with FCMAE, version 2 is better than version 1", BASELINE, "version_1"),
    Finding("hiding 0.6 of the patches is better than hiding few", BASELINE, "mask_ratio_0.2"),
    Finding("hiding 0.6 of the patches is better than hiding nearly all", BASELINE, "mask_ratio_0.9"),
    Finding("targets are normalized patch by patch (section 3)", BASELINE, "targets_not_normalized"),
    Finding("one block of decoder is enough (section 3)", BASELINE, "decoder_depth_2", as_good=True),
    Finding("longer pretraining helps", "twice_as_long", BASELINE),
)


class Ablations(Study):
    """Pretrains the baseline and its variants once a seed; probes, and fine-tunes on the same choices of few labels.

    Each variant chooses its own rate, on the first choice of labels.
    """

    name = "ablations"
    title = "Top-1 on the validation images"

    def trials(self):
        """Variant by variant."""
        for seed in self.seeds:
            for variant in VARIANTS:
                yield from self._trials_of(variant, seed)

    def results(self):
        rows, labels = [], self.budget.probe_labels
        for variant in VARIANTS:
            arms = {seed: self._arm(variant, seed) for seed in self.seeds}
            figures = {
                f"{seed}/{subset}": self._top1(arm, subset) for seed, arm in arms.items() for subset in self._subsets
            }
            probes = {seed: self._probing(variant, seed).result for seed in self.seeds}
            row = {"name": variant.name, "label": variant.label, "finetuned": summary(figures)}
            row["pretraining_steps"] = self._steps(variant)
            row["rates"] = {str(seed): arm.choice and arm.choice.rate for seed, arm in arms.items()}
            for probe in ("linear", "knn"):
                scores = {seed: result and result["top1"][labels][probe] for seed, result in probes.items()}
                row[probe] = summary(scores)
            rows.append(row)
        return {
            "labels": self._length.labels,
            "steps": self._length.steps,
            "probe_labels": f"{int(labels):,}" if labels.isdecimal() else labels,
            "rows": rows,
            "findings": [finding.compare(rows) for finding in FINDINGS],
        }

    def tables(self, results):
        header = ["variant", f"fine-tuned, {results['labels']} labels", "against the baseline"]
        header += [f"{score}, {results['probe_labels']} labels" for score in (SCORES["linear"], SCORES["knn"])]
        header += ["steps of pretraining", "peak rate"]
        baseline = results["rows"][0]["finetuned"]
        cells = []
        for row in results["rows"]:
            gap = shown(difference(row["finetuned"], baseline), signed=True) if row["name"] != BASELINE else ""
            rates = ", ".join(dict.fromkeys(f"{rate:g}" for rate in row["rates"].values() if rate))
            scores = [shown(row[score]) for score in ("linear", "knn")]
            cells.append([row["label"], shown(row["finetuned"]), gap, *scores, f"{row['pretraining_steps']:,}", rates])
        found = [
            [finding["text"], shown(finding["difference"], signed=True), finding["verdict"] or "open"]
            for finding in results["findings"]
        ]
        header_of_findings = [f"[the paper]({PAPER})", "difference here, fine-tuned", "verdict"]
        return [*markdown_table(header, cells), "", *markdown_table(header_of_findings, found)]

    def draw(self, results, path):
        rows = [row for row in results["rows"] if row["finetuned"]["values"]][::-1]
        figure = Figure(figsize=(9, 1.4 + 0.36 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        places = range(len(rows))
        spreads = [row["finetuned"]["deviation"] or 0.0 for row in rows]
        left.errorbar(
            [row["finetuned"]["mean"] for row in rows], places, None, spreads, "o", color="#0072B2", capsize=3
        )
        for score, color, marker in (("linear", "#D55E00", "s"), ("knn", "#009E73", "^")):
            known = [(row[score]["mean"], place) for row, place in zip(rows, places) if row[score]["values"]]
            right.plot(*(zip(*known) if known else ((), ())), marker, color=color, label=SCORES[score])
        left.set_yticks(places, [row["label"].partition(":")[0] for row in rows], fontsize=8)
        left.set_xlabel(f"fine-tuned with {results['labels']} labels, top-1 in %", fontsize=9)
        right.set_xlabel(f"frozen encoder, {results['probe_labels']} labels, top-1 in %", fontsize=9)
        left.margins(y=0.5 / max(1, len(rows)))
        figure.legend(frameon=False, fontsize=8, loc="outside upper right", ncols=2)
        for axis in (left, right):
            axis.grid(alpha=0.3)
        figure.savefig(path, dpi=120, format="png")

    @property
    def _length(self):
        (length,) = self.budget.few
        return length

    @property
    def _subsets(self):
        return range(self.budget.subsets)

    def _steps(self, variant):
        return round(variant.length * self.budget.pretraining_steps)

    def _pretraining(self, variant, seed):
        config = dataclasses.replace(variant.config_of(self.config), seed=seed)
        return self.pretraining(f"{variant.name}/seed_{seed}/pretraining", config, self._steps(variant))

    def _arm(self, variant, seed):
        config = variant.config_of(self.config)
        pretraining_of = (lambda subset: self._pretraining(variant, seed)) if variant.length else None
        return dataclasses.replace(
            self.arm(
                self._length,
                lambda subset: f"{variant.name}/seed_{seed}/subset_{subset}",
                lambda subset: dataclasses.replace(config, seed=subset),
                pretraining_of,
            ),
            first_seed=0,
        )

    def _probing(self, variant, seed):
        config = dataclasses.replace(variant.config_of(self.config), seed=seed)
        pretraining = self._pretraining(variant, seed) if variant.length else None
        labels = (self.budget.probe_labels,)
        return self.probing(f"{variant.name}/seed_{seed}/probes", config, labels, "validation", pretraining)

    def _trials_of(self, variant, seed):
        if variant.length:
            yield self._pretraining(variant, seed)
        arm = self._arm(variant, seed)
        yield from arm.searching()
        yield from (arm.final(subset) for subset in self._subsets)
        yield self._probing(variant, seed)

    def _top1(self, arm, subset):
        final = arm.final(subset)
        return final.result["validation_top1"] if final.is_complete and not final.has_diverged else None
