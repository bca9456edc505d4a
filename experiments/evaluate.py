"""Evaluation of a finished run: top-1, or mean average precision and F1; probes, beside those of a random encoder."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from convnext.backbone import ConvNeXt
from experiments.config import Config
from experiments.data.preprocessing import Preprocessing
from experiments.data.segmentation_masks import CLASSES, ClassTable
from experiments.data.source import Source
from experiments.data.sources import open_source
from experiments.data.sources.folder_with_masks import named_classes
from experiments.data.sources.tfds_damage import naming_damage
from experiments.errors import UserError
from experiments.evaluation.classification import Predictions, classification_metrics, notes_on_predictions
from experiments.evaluation.devices import Devices
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.probes import FROZEN_PROBES, FrozenProbes
from experiments.evaluation.segmentation import Confusions, notes_on_confusions, segmentation_metrics
from experiments.finished_run import (
    check_no_image_settings,
    config_of,
    find_model,
    find_segmenter,
    is_classifier,
    is_multi_label_classifier,
    read_model,
    read_segmenter,
    recorded_classes,
    recorded_config,
    with_images,
)
from experiments.io import local_copy
from experiments.models import initial_weights
from experiments.training.distributed.strategy import make_strategy
from experiments.training.workdir import CONFIG, SUMMARY
from experiments.types import Log

CLASSIFIER_PROBES = {False: ("top1",), True: ("map", "f1")}  # by whether it is a multi-label one
PIXEL_PROBES = ("mean_iou", "pixel_accuracy")
PROBES = ("top1", "map", "f1", *PIXEL_PROBES, *FROZEN_PROBES)


def run(
    model: str | os.PathLike[str],
    data: str = "",
    data_dir: str = "",
    probes: Sequence[str] = (),
    split: str = "test",
    batch_size: int = 0,
    labels_file: str = "",
    images: Mapping[str, Any] | None = None,
    log: Log = print,
) -> dict[str, dict[str, float]]:
    """Evaluates the model of a run, or other weights.

    Args:
        model: path or URL of the workdir of a run, or of a file that `convnext.create_from_weights` reads.
        data: `digits`, `tfds:NAME` or `folder:PATH`; empty for the images of the run.
        data_dir: where TensorFlow Datasets keeps its data; empty for that of the run.
        probes: names from `PROBES`; empty for all that apply: `top1` needs a fine-tuned model, `map` and `f1` a
            multi-label one, `mean_iou` and `pixel_accuracy` a segmentation model; `knn` and `linear` need images of one
            class each.
        split: the split to evaluate on, `test` or `validation`.
        batch_size: images at a time; 0 for as many as the configuration of the run says.
        labels_file: of the images that `data` names, see `DataConfig`; not for a segmentation model.
        images: how images are prepared for weights without a run, see `finished_run.config_of`; not for a segmentation
            model.
        log: function that takes a line for the user.

    Returns:
        `{probe: {"model": percent, "random": percent}}`; `random` is the same for a randomly initialised encoder;
        metrics of the classifier have no `random`, because an untrained classifier is meaningless.

    Raises:
        UserError: if the model cannot be found or does not fit the request.
    """
    if segmenter := find_segmenter(model):
        if labels_file:
            raise UserError(f"{segmenter} is a segmentation model, evaluated by masks: leave out --labels_file.")
        check_no_image_settings(segmenter, images)
        return _evaluate_segmenter(segmenter, data, data_dir, probes, split, batch_size, log)
    with local_copy(model, beside=(CONFIG, SUMMARY)) as path:
        path = find_model(path)
        strategy = make_strategy(Config())
        with strategy.scope():
            trained = read_model(path, include_top=is_classifier(path))
        config = config_of(path, trained, data, data_dir, labels_file, images, log)
        return _evaluate(path, trained, config, strategy, probes, split, batch_size, log)


def _evaluate(
    path: pathlib.Path,
    trained: ConvNeXt,
    config: Config,
    strategy: tf.distribute.Strategy,
    probes: Sequence[str],
    split: str,
    batch_size: int,
    log: Log,
) -> dict[str, dict[str, float]]:
    source = open_source(config.data)
    if not source.num_classes:
        raise UserError(f"{source.name} has no labels to evaluate with.")
    is_multi_label = is_classifier(path) and is_multi_label_classifier(path)
    source = source.as_multi_label() if is_multi_label else source
    target = source.split(split)
    probes = _applicable(probes, path, is_multi_label, source)
    if of_classifier := [name for name in probes if name not in FROZEN_PROBES]:
        _check_classes(path, source, is_multi_label)
    log(f"{path} on {target.num_examples:,} {split} images of {source.name}")

    batch_size, devices = batch_size or config.evaluation_batch(), Devices(strategy)
    with naming_damage(config.data):
        preprocessing = Preprocessing.of(config.data)
        results: dict[str, dict[str, float]] = {}
        unreadable = 0
        if of_classifier:
            predict = Predictions(trained, target, preprocessing, batch_size, source.label_sets, devices)
            labels, answers, unreadable = predict()
            found = classification_metrics(labels, answers)
            results |= {name: {"model": found[name]} for name in of_classifier}
        if names := [name for name in probes if name in FROZEN_PROBES]:
            frozen_probes = FrozenProbes(source, split, names)
            features_of = PooledFeatures(trained, preprocessing, batch_size, devices)
            of_trained, unreadable = frozen_probes(features_of), frozen_probes.unreadable
            with initial_weights(config.seed), strategy.scope():
                random = type(trained).from_config(trained.get_config())
            trained.set_weights(random.get_weights())  # for which all graphs are there
            of_random = frozen_probes(features_of)
            results |= {name: {"model": of_trained[name], "random": of_random[name]} for name in names}
    for note in notes_on_predictions(split, target.num_examples, unreadable):
        log(note)
    return results


def _evaluate_segmenter(
    path: pathlib.Path, data: str, data_dir: str, probes: Sequence[str], split: str, batch_size: int, log: Log
) -> dict[str, dict[str, float]]:
    if other := next((name for name in probes if name not in PIXEL_PROBES), None):
        raise UserError(f"{path} has no {other}; it has {' and '.join(PIXEL_PROBES)}.")
    strategy = make_strategy(Config())
    with strategy.scope():
        model, config, table = read_segmenter(path)
    recorded = recorded_config(path)
    assert recorded is not None
    of_run = recorded.data
    if data not in ("", of_run.source) or not of_run.class_names:
        _check_class_table(path, table, data or of_run.source)
    batch_size = batch_size or config.evaluation_batch_size
    config = dataclasses.replace(with_images(config, data, data_dir), evaluation_batch_size=batch_size)
    source = open_source(config.data, masks=True)
    assert source.masks is not None
    target = source.split(split)
    log(f"{path} on {target.num_examples:,} {split} images of {source.name}")
    with naming_damage(config.data):
        counts = Confusions(model, config, target, source.masks, Devices(strategy))()
    for note in notes_on_confusions(split, target.num_examples, *counts):
        log(note)
    found = segmentation_metrics(*counts)
    return {name: {"model": found[name]} for name in probes or PIXEL_PROBES}


def _check_class_table(path: pathlib.Path, table: ClassTable, data: str) -> None:
    """Raises UserError if a folder names other classes, or other numbers for them, than a model was trained on."""
    kind, _, folder = data.partition(":")
    own = named_classes(folder, table.ignored) if kind == "folder" else None
    if own and dict(zip(own.numbers, own.names)) != dict(zip(table.numbers, table.names)):
        classes = f"{folder}/{CLASSES}"
        raise UserError(
            f"{path} was fine-tuned on other classes than those of {classes}, or on other numbers for them."
        )


def _applicable(probes: Sequence[str], path: pathlib.Path, is_multi_label: bool, source: Source) -> Sequence[str]:
    """Returns the probes, or all that can be taken; raises UserError for others."""
    of_classifier = CLASSIFIER_PROBES[is_multi_label] if is_classifier(path) else ()
    frozen = FROZEN_PROBES if source.label_sets is None else ()
    for name in probes:
        if name in FROZEN_PROBES and not frozen:
            raise UserError(f"{source.name} has images of several classes: --probe={name} needs one class per image.")
        if name not in (*of_classifier, *FROZEN_PROBES):
            if not of_classifier:
                raise UserError(
                    f"{path} is an encoder: {name} needs a fine-tuned run. Use --probe=knn or --probe=linear."
                )
            raise UserError(f"{path} has no {name}; it has {' and '.join(of_classifier)}.")
    if not (of_classifier or frozen):
        raise UserError(f"{source.name} has images of several classes: the probes of an encoder need one per image.")
    return probes or (*of_classifier, *frozen)


def _check_classes(path: pathlib.Path, source: Source, is_multi_label: bool) -> None:
    """Raises UserError if a classifier was fine-tuned on other classes than the source has, or on one per image."""
    if source.label_sets is not None and not is_multi_label:
        raise UserError(f"{path} was fine-tuned on images of one class each; {source.name} has images of several.")
    if recorded_classes(path) != list(source.class_names):
        raise UserError(
            f"{path} was fine-tuned on other classes than those of {source.name}; it can be probed with --probe=knn."
        )
