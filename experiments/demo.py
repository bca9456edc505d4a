"""The demonstration: does pretraining pay on digits with 100 labels?"""

import dataclasses
import time
from collections.abc import Iterable, Mapping
from typing import Any

from experiments import evaluate, finetune, pretrain
from experiments.config import Config
from experiments.data.sources import open_source
from experiments.io import as_path
from experiments.presets import digits
from experiments.studies.report import difference, summary
from experiments.types import Log, Path

SEEDS = (0, 1, 2)


def run(workdir: str | Path, config: Config | None = None, seeds: Iterable[int] = SEEDS, log: Log = print) -> list[str]:
    """Pretrains on digits, then fine-tunes with few labels from the pretrained encoder and from scratch.

    Both arms have the same budget, labels and seeds. The figures are those of the test images, on which nothing
    was chosen.

    Args:
        workdir: path of the folder for all runs.
        config: a `Config`; None for the preset of the digits.
        seeds: of the fine-tuning runs.
        log: function that takes a line for the user.

    Returns:
        The lines of the table.
    """
    began = time.perf_counter()
    workdir = as_path(workdir)
    config = config or Config.from_dict(digits.get_config().to_dict())
    pretrained = workdir / "pretrained"
    pretrain.run(config, pretrained, log=log)
    log("")
    arms = {"pretrained": dataclasses.replace(config, pretrained=str(pretrained)), "scratch": config}
    top1: dict[str, dict[int, float]] = {name: {} for name in arms}
    for seed in seeds:
        for name, arm in arms.items():
            results: Any = finetune.run(
                dataclasses.replace(arm, seed=seed), workdir / f"{name}_seed_{seed}", log=lambda line: None
            )
            top1[name][seed] = results["test_top1"]
            start = "from the pretrained encoder" if name == "pretrained" else "from scratch"
            log(
                f"fine-tuned {start:<27} seed {seed}: top-1 {results['test_top1']:.1f}% after {results['steps']} "
                f"steps, {results['seconds']:.0f} s"
            )
    probes = evaluate.run(pretrained, log=lambda line: None)
    seconds = time.perf_counter() - began
    return _table(config, top1, probes, seconds, pretrained)


def _table(
    config: Config, top1: Mapping[str, dict[int, float]], probes: Mapping[str, Any], seconds: float, pretrained: Path
) -> list[str]:
    """Returns the lines of the table: a row for each measure, pretrained beside randomly initialised."""
    source = open_source(config.data)
    train, test = (source.split(name).num_examples for name in ("train", "test"))
    finetuned = [summary(top1[name]) for name in ("pretrained", "scratch")]
    gain = difference(*finetuned)
    rows = {
        f"top-1 on the {test:,} test images, %": ("pretrained", "random start", "gain"),
        f"fine-tuned with {config.finetune.labels} labels, {len(gain['values'])} seeds (mean +- std)": (
            *(f"{figures['mean']:.1f}{_spread(figures)}" for figures in finetuned),
            f"{gain['mean']:+.1f}{_spread(gain)}",
        ),
        f"k-NN on frozen features, {train:,} labels": _one_decimal(probes["knn"]),
        f"linear probe on frozen features, {train:,} labels": _one_decimal(probes["linear"]),
    }
    return [
        "",
        *(f"{name:<54}{left:>14}{right:>15}{gain:>14}" for name, (left, right, gain) in rows.items()),
        "",
        f"{config.pretrain.epochs} epochs of pretraining on {train:,} images without labels; {seconds:.0f} s in all",
        f"reconstructions  {max((pretrained / 'reconstructions').glob('*.png'))}",
        f"curves           {pretrained / 'curves.png'}",
    ]


def _one_decimal(figures: Mapping[str, float]) -> tuple[str, str, str]:
    trained, random = figures["model"], figures["random"]
    return f"{trained:.1f}", f"{random:.1f}", f"{trained - random:+.1f}"


def _spread(figures: Mapping[str, Any]) -> str:
    return f" +- {figures['std'] or 0.0:.1f}"
