"""Evaluation of a finished run: top-1; k-NN and linear probe, beside those of a randomly initialised encoder."""

from convnext.weights.loader import PretrainedError, load_pretrained
from experiments.data.damage import naming_damage
from experiments.data.preprocessing import Preprocessing
from experiments.data.sources import open_source
from experiments.errors import UserError
from experiments.evaluation.classification import TopOne
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.probes import FROZEN_PROBES, FrozenProbes
from experiments.finished_run import config_of, find_model, is_classifier, recorded_classes
from experiments.io import local_copy
from experiments.models import initial_weights, make_classifier, make_encoder
from experiments.training.workdir import CONFIG, SUMMARY

PROBES = ("top1", *FROZEN_PROBES)


def run(model, data="", data_dir="", probes=(), split="test", batch_size=0, images=None, log=print):
    """Evaluates the model of a run, or other weights.

    Args:
        model: path or URL of the workdir of a run, or of a file that `convnext.create_from_weights` reads.
        data: `digits`, `tfds:NAME` or `folder:PATH`; empty for the images of the run.
        data_dir: where TensorFlow Datasets keeps its data; empty for that of the run.
        probes: names from `PROBES`; empty for all that apply: `top1` needs a fine-tuned model.
        split: on which the figures are taken: `test` or `validation`.
        batch_size: images at a time; 0 for as many as the configuration of the run says.
        images: how images are prepared for weights without a run, see `finished_run.config_of`.
        log: function that takes a line for the user.

    Returns:
        `{probe: {"model": percent, "random": percent}}`; `random` is the same for a randomly initialised encoder, and
        missing for `top1`: what an untrained classifier answers says nothing.

    Raises:
        UserError: if the model cannot be found or does not fit the request.
    """
    with local_copy(model, beside=(CONFIG, SUMMARY)) as path:
        return _evaluate(find_model(path), data, data_dir, probes, split, batch_size, images, log)


def _evaluate(path, data, data_dir, probes, split, batch_size, images, log):
    config = config_of(path, data, data_dir, images, log)
    source = open_source(config.data)
    if not source.num_classes:
        raise UserError(f"{source.name} has no labels to evaluate with.")
    target = source.split(split)
    probes = _applicable(probes, path)
    if "top1" in probes:
        _check_classes(path, source)
    log(f"{path} on {target.num_examples:,} {split} images of {source.name}")

    batch_size = batch_size or config.evaluation_batch(config.finetune if is_classifier(path) else config.pretrain)
    trained = _trained_model(path, config, source.num_classes)
    with naming_damage(config.data):
        preprocessing, results = Preprocessing.of(config.data), {}
        if "top1" in probes:
            results["top1"] = {"model": TopOne(trained, target, preprocessing, batch_size)()}
        if names := [name for name in probes if name in FROZEN_PROBES]:
            frozen_probes = FrozenProbes(source, split, names)
            of_trained = frozen_probes(PooledFeatures(trained, preprocessing, batch_size))
            random = _new_model(path, config, source.num_classes)
            of_random = frozen_probes(PooledFeatures(random, preprocessing, batch_size))
            results |= {name: {"model": of_trained[name], "random": of_random[name]} for name in names}
    return results


def _applicable(probes, path):
    classifies = is_classifier(path)
    if "top1" in probes and not classifies:
        raise UserError(f"{path} is an encoder: top1 needs a fine-tuned run. Use --probe=knn or --probe=linear.")
    return probes or (PROBES if classifies else PROBES[1:])


def _check_classes(path, source):
    """Raises UserError if a classifier was fine-tuned on other classes than the source has."""
    if recorded_classes(path) != list(source.class_names):
        raise UserError(
            f"{path} was fine-tuned on other classes than those of {source.name}; it can be probed with --probe=knn."
        )


def _new_model(path, config, num_classes):
    """Returns a model of the kind of a trained one, with random weights."""
    with initial_weights(config.seed):
        if is_classifier(path):
            return make_classifier(config, num_classes)
        return make_encoder(config)


def _trained_model(path, config, num_classes):
    model = _new_model(path, config, num_classes)
    try:
        load_pretrained(model, path)
    except PretrainedError as error:
        raise UserError(str(error)) from error
    return model
