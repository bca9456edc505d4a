"""The demonstration: does pretraining pay on digits with 100 labels?"""

import dataclasses
import pathlib
import statistics
import time

import keras

from convnext.pretrained import load_pretrained
from experiments import finetune, pretrain
from experiments.config import Config
from experiments.data.pipeline import Preparation
from experiments.data.sources import open_source
from experiments.evaluate import probe
from experiments.models import make_encoder
from experiments.presets import digits

SEEDS = (0, 1, 2)


def run(workdir, config=None, seeds=SEEDS, say=print):
    """Pretrains on digits, then fine-tunes with few labels from the pretrained encoder and from scratch.

    Both arms have the same budget, labels and seeds. The figures are those of the test images, on which nothing
    was chosen.

    Args:
        workdir: path of the folder for all runs.
        config: a `Config`; None for the preset of the digits.
        seeds: of the fine-tuning runs.
        say: function that takes a line for the user.

    Returns:
        The lines of the table.
    """
    began = time.perf_counter()
    workdir = pathlib.Path(workdir)
    config = config or Config.from_dict(digits.get_config().to_dict())
    pretrained = workdir / "pretrained"
    pretrain.run(config, pretrained, say=say)
    say("")
    arms = {
        "pretrained": dataclasses.replace(config, pretrained=str(pretrained)),
        "scratch": config,
    }
    top1 = {name: [] for name in arms}
    for seed in seeds:
        for name, arm in arms.items():
            summary = finetune.run(dataclasses.replace(arm, seed=seed), workdir / f"{name}_seed_{seed}", say=_quiet)
            top1[name].append(summary["test_top1"])
            start = "from the pretrained encoder" if name == "pretrained" else "from scratch"
            say(
                f"fine-tuned {start:<27} seed {seed}: top-1 {summary['test_top1']:.1f}% after {summary['steps']} "
                f"steps, {summary['seconds']:.0f} s"
            )
    probes = {"pretrained": _probe(config, pretrained), "scratch": _probe(config, None)}
    seconds = time.perf_counter() - began
    return _table(config, top1, probes, seconds, pretrained)


def _probe(config, pretrained):
    """Returns the probes of a pretrained encoder, or without one of a randomly initialised encoder."""
    keras.utils.set_random_seed(config.seed)
    encoder = make_encoder(config)
    if pretrained:
        load_pretrained(encoder, pretrained)
    source = open_source(config.data)
    return probe(encoder, source, source.split("test"), Preparation.of(config.data))


def _table(config, top1, probes, seconds, pretrained):
    def spread(values):
        return f"{statistics.mean(values):.1f} +- {statistics.stdev(values):.1f}"

    source = open_source(config.data)
    counts = {name: source.split(name).num_examples for name in ("train", "test")}
    picture = sorted((pretrained / "reconstructions").glob("*.png"))[-1]
    return [
        "",
        f"{'top-1 on the ' + str(counts['test']) + ' test images, %':<52}{'pretrained':>14}{'random start':>15}",
        f"{f'fine-tuned with {config.finetune.labels} labels, {len(top1['scratch'])} seeds (mean +- std)':<52}"
        f"{spread(top1['pretrained']):>14}{spread(top1['scratch']):>15}",
        f"{'k-NN on frozen features, ' + format(counts['train'], ',') + ' labels':<52}"
        f"{probes['pretrained']['knn']:>14.1f}{probes['scratch']['knn']:>15.1f}",
        f"{'linear probe on frozen features, ' + format(counts['train'], ',') + ' labels':<52}"
        f"{probes['pretrained']['linear']:>14.1f}{probes['scratch']['linear']:>15.1f}",
        "",
        f"pretraining: {config.pretrain.epochs} epochs on {counts['train']:,} images without labels; everything took {seconds:.0f} s",
        f"reconstructions  {picture}",
        f"curves           {pretrained / 'curves.png'}",
    ]


def _quiet(line):
    del line
