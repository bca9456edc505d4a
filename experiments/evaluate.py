"""Evaluation of a finished run: top-1, k-NN and linear probe, each beside a randomly initialised encoder."""

import dataclasses

import keras

from convnext.pretrained import PretrainedError, find_weights, load_pretrained
from experiments.config import Config
from experiments.config.data import SPLIT_FIELDS
from experiments.data.pipeline import Preparation
from experiments.data.sources import open_source
from experiments.errors import UserError
from experiments.evaluation.classification import TopOne
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.probes import knn_top1, linear_top1
from experiments.models import make_classifier, make_encoder
from experiments.training.workdir import CONFIG, finished_summary, read_json

PROBES = ("top1", "knn", "linear")
BATCH_SIZE = 256


def run(model, data="", data_dir="", probes=(), split="test", say=print):
    """Evaluates the model of a run.

    Args:
        model: workdir of a run, or a `.keras` file in one.
        data: `digits`, `tfds:NAME` or `folder:PATH`; empty for the images of the run.
        data_dir: where TensorFlow Datasets keeps its data; empty for that of the run.
        probes: names from `PROBES`; empty for all that apply: `top1` needs a fine-tuned model.
        split: on which the figures are taken: `test` or `validation`.
        say: function that takes a line for the user.

    Returns:
        `{probe: {"model": percent, "random": percent}}`; `random` is the same for a randomly initialised encoder.

    Raises:
        UserError: if the model cannot be found or does not fit the request.
    """
    path = _find(model)
    config = _config_of(path, data, data_dir)
    source = open_source(config.data)
    if not source.num_classes:
        raise UserError(f"{source.name} has no labels to evaluate with.")
    target = source.split(split)
    probes = _applicable(probes, path)
    if "top1" in probes:
        _check_classes(path, source)
    say(f"{path} on {target.num_examples:,} {split} images of {source.name}")

    trained, random = _models(path, config, source.num_classes)
    preparation = Preparation.of(config.data)
    results = {}
    for name, classifier_or_encoder in (("model", trained), ("random", random)):
        figures = _figures(classifier_or_encoder, source, target, preparation, probes)
        for probe, value in figures.items():
            results.setdefault(probe, {})[name] = value
    return results


def probe(encoder, source, target, preparation, probes=("knn", "linear")):
    """Returns `{probe: percent}` of the pooled features of an encoder.

    Args:
        encoder: a `ConvNeXt`.
        source: the `Source`; the probes learn from its train split and choose on its validation split.
        target: the split on which the figures are taken.
        preparation: the `Preparation` of the images.
        probes: `knn`, `linear`, or both.
    """
    features_of = PooledFeatures(encoder, preparation, BATCH_SIZE)
    train, test = features_of(source.split("train")), features_of(target)
    figures = {}
    if "knn" in probes:
        figures["knn"] = knn_top1(train, test)
    if "linear" in probes:
        validation = source.get("validation")
        figures["linear"] = linear_top1(train, validation and features_of(validation), test)
    return figures


def _find(model):
    try:
        return find_weights(model)
    except PretrainedError as error:
        raise UserError(f"--model={model}: {error}") from error


def _config_of(path, data, data_dir):
    recorded = path.parent / CONFIG
    if not recorded.exists():
        raise UserError(f"{path.parent} has no {CONFIG}, which says how the images of {path.name} are prepared.")
    config = Config.from_dict(read_json(recorded)["config"])
    changes = {name: value for name, value in (("source", data), ("dir", data_dir)) if value}
    if data:  # the names of splits are those of the run's own data set
        changes |= dict.fromkeys(SPLIT_FIELDS, "")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def _applicable(probes, path):
    classifies = _is_classifier(path)
    if "top1" in probes and not classifies:
        raise UserError(f"{path} is an encoder: top1 needs a fine-tuned run. Use --probe=knn or --probe=linear.")
    return probes or (PROBES if classifies else PROBES[1:])


def _is_classifier(path):
    """Whether a file of a run is a classifier: that of its end, the average, or the best."""
    return path.name.startswith("classifier")


def _check_classes(path, source):
    """Raises UserError if a classifier was fine-tuned on other classes than the source has."""
    summary = finished_summary(path.parent) or {}
    if summary.get("classes") != list(source.class_names):
        raise UserError(
            f"{path} was fine-tuned on other classes than those of {source.name}; it can be probed with --probe=knn."
        )


def _models(path, config, num_classes):
    """Returns the trained model, and one of the same kind with random weights."""

    def make():
        if _is_classifier(path):
            return make_classifier(config, num_classes)
        return make_encoder(config)

    keras.utils.set_random_seed(config.seed)
    trained, random = make(), make()
    try:
        load_pretrained(trained, path)
    except PretrainedError as error:
        raise UserError(str(error)) from error
    return trained, random


def _figures(model, source, target, preparation, probes):
    figures = {}
    if "top1" in probes:
        figures["top1"] = TopOne(model, target, preparation, BATCH_SIZE)()
    frozen = [name for name in probes if name != "top1"]
    return {**figures, **(probe(model, source, target, preparation, frozen) if frozen else {})}
