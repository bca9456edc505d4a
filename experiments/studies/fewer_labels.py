"""Does pretraining pay? The same encoder with few labels and with many, pretrained and from scratch."""

import dataclasses

from matplotlib.figure import Figure

from experiments.studies.study import Study, difference, markdown_table, shown, summary

STARTS = ("pretrained", "scratch")
ENCODERS = ("pretrained", "random")
PROBES = {"linear": "linear probe", "knn": "k-NN"}
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
    choose the rate, with the first seed; the test images are read of what is chosen. The labels are drawn with the
    seed, and so are the initial weights.
    """

    name = "fewer_labels"
    title = "Top-1 on the test images by number of labels"

    def trials(self):
        """First all seeds with few labels, then more labels."""
        for seed in self.seeds:
            yield self._pretraining(seed)
            for length in self.budget.few:
                yield from self._fine_tunings(length, seed)
            yield from (self._probing(encoder, seed) for encoder in ENCODERS)
        for length in self.budget.many:
            for seed in self.seeds:
                yield from self._fine_tunings(length, seed)

    def results(self):
        rows = []
        for length in sorted(self.budget.lengths, key=self._count):
            arms = {start: self._arm(start, length) for start in STARTS}
            row = {
                "labels": self._count(length),
                "steps": length.steps,
                "batch_size": length.batch_size,
                "choice_steps": length.choice_steps or length.steps,
                "finetuned": {start: self._top1(arm) for start, arm in arms.items()},
                "rates": {start: _rates(arm) for start, arm in arms.items()},
            }
            for probe in PROBES:
                row[probe] = {encoder: self._probed(encoder, probe, length.labels) for encoder in ENCODERS}
            row["gain"] = difference(*row["finetuned"].values())
            rows.append(row)
        return {"pretraining_steps": self.budget.pretraining_steps, "rows": rows}

    def tables(self, results):
        header = ["labels", *(f"fine-tuned, {start}" for start in STARTS), "gain"]
        header += [f"{name}, {encoder}" for name in PROBES.values() for encoder in ENCODERS]
        rows = []
        for row in results["rows"]:
            cells = [shown(row["finetuned"][start]) for start in STARTS] + [shown(row["gain"], signed=True)]
            cells += [shown(row[probe][encoder]) for probe in PROBES for encoder in ENCODERS]
            rows.append([f"{row['labels']:,}", *cells])
        return [*markdown_table(header, rows), "", *_rates_table(results["rows"])]

    def draw(self, results, path):
        figure = Figure(figsize=(7, 4.8), layout="constrained")
        axis = figure.add_subplot()
        for (measure, start), (label, color, marker, line) in STYLES.items():
            points = [(row["labels"], row[measure][start]) for row in results["rows"] if row[measure][start]["values"]]
            if not points:
                continue
            labels, means = [count for count, _ in points], [figures["mean"] for _, figures in points]
            spreads = [figures["deviation"] or 0.0 for _, figures in points]
            axis.errorbar(labels, means, spreads, color=color, marker=marker, linestyle=line, capsize=4, label=label)
        axis.set_xscale("log")
        counts = [row["labels"] for row in results["rows"]]
        axis.set_xticks(counts, [f"{count:,}" for count in counts])
        axis.minorticks_off()
        axis.set_xlabel("labels")
        axis.set_ylabel("top-1 on the test images, %")
        axis.grid(alpha=0.3)
        if axis.has_data():
            figure.legend(frameon=False, loc="outside upper center", ncols=2)
        figure.savefig(path, dpi=120, format="png")

    def _count(self, length):
        return self.num_images if length.labels == "all" else int(length.labels)

    def _seeded(self, seed):
        return dataclasses.replace(self.config, seed=seed)

    def _pretraining(self, seed):
        return self.pretraining(f"seed_{seed}/pretraining", self._seeded(seed))

    def _arm(self, start, length):
        pretraining_of = self._pretraining if start == "pretrained" else None
        return self.arm(
            length, lambda seed: f"seed_{seed}/labels_{length.labels}/{start}", self._seeded, pretraining_of
        )

    def _fine_tunings(self, length, seed):
        arms = [self._arm(start, length) for start in STARTS]
        if seed == self.seeds[0]:
            for arm in arms:
                yield from arm.searching()
        for arm in arms:
            yield arm.final(seed)
            yield arm.testing(seed)

    def _probing(self, encoder, seed):
        pretraining = self._pretraining(seed) if encoder == "pretrained" else None
        labels = tuple(length.labels for length in self.budget.lengths)
        return self.probing(f"seed_{seed}/probes/{encoder}", self._seeded(seed), labels, "test", pretraining)

    def _top1(self, arm):
        results = {seed: arm.testing(seed).result for seed in self.seeds}
        return summary({seed: result and result["test_top1"] for seed, result in results.items()})

    def _probed(self, encoder, probe, labels):
        results = {seed: self._probing(encoder, seed).result for seed in self.seeds}
        return summary({seed: result and result["top1"][labels][probe] for seed, result in results.items()})


def _rates(arm):
    choice = arm.choice
    if choice is None:
        return None
    tried = {f"{rate:g}": top1 for rate, top1 in choice.tried.items()}
    return {"chosen": choice.rate, "at_edge": choice.is_at_edge, "tried": tried}


def _rates_table(rows):
    """Returns the lines of the table of the rates: what was tried, and what the validation images said."""
    cells = []
    for row in rows:
        for start, rates in row["rates"].items():
            if rates:
                tried = ", ".join(f"{rate}: {top1:.1f}" for rate, top1 in rates["tried"].items())
                edge = " (at the edge of what was tried)" if rates["at_edge"] else ""
                steps = [f"{count:,} of {row['batch_size']}" for count in (row["choice_steps"], row["steps"])]
                cells.append([f"{row['labels']:,}, {start}", f"{rates['chosen']:g}{edge}", tried, *steps])
    header = ["labels, start", "peak rate", "top-1 on the validation images by rate", "steps of these runs"]
    header += ["steps of the run"]
    return markdown_table(header, cells)
