"""Conversion of weights: from the authors' code, timm and Transformers to Keras, and back."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np

from convnext.backbone import ConvNeXt
from convnext.factory import make_model
from convnext.weights import Architecture, ImageSettings, PretrainedError, read_checkpoint, read_weights, write_weights
from convnext.weights.loader import DECODER, assign_weights, find_weights
from convnext.weights.names import HEAD, HEAD_NORM
from convnext.weights.recognition import Checkpoint
from experiments.config import height_and_width, size_text
from experiments.errors import UserError
from experiments.finished_run import recorded_classes, recorded_config
from experiments.io import appearing, local_copy, local_output
from experiments.training.workdir import CONFIG, SUMMARY
from experiments.types import Log
from fcmae.model import FCMAE

FORMATS = ("keras", "fair", "timm", "huggingface")
PARTS = ("all", "encoder")


def run(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    to: str = "keras",
    part: str = "all",
    key: str | None = None,
    image_size: int | tuple[int, ...] | None = None,
    log: Log = print,
) -> Architecture:
    """Converts weights.

    Args:
        source: path or URL of a run's workdir, or of a file that `convnext.weights.read_weights` reads.
        output: path or URL of the file to write; for Transformers of a folder, for timm of either.
        to: one of `FORMATS`: `keras` writes a model (`.keras`, `.weights.h5`), the others the weights by the names of
            that library (`.safetensors`, `.pt`, or a folder with configuration, preprocessing and model card).
        part: `all` of what the source holds (an autoencoder's decoder has a place in Keras and in the authors' format
            alone), or the `encoder`, without head and decoder.
        key: entry of a PyTorch checkpoint that holds the weights: `model`, `model_ema`.
        image_size: in pixels, one number or `(height, width)`, for an autoencoder and for the configuration in a
            folder; None for that of the run, or 224.
        log: function that takes a line for the user.

    Raises:
        UserError: if the source cannot be read, or has no place in the format.
    """
    try:
        with local_copy(source, beside=(CONFIG, SUMMARY)) as local:
            path = find_weights(local)
            checkpoint = read_checkpoint(path, key)
            images = _image_settings(path, checkpoint, image_size)
        architecture = Architecture.of(checkpoint.weights, path, checkpoint.options)
        weights = _chosen(checkpoint.weights, part, to, log)
        log(f"{path}: {describe(weights)}")
        if checkpoint.left_out:
            log(f"left out: {', '.join(checkpoint.left_out[:8])}{' ...' if len(checkpoint.left_out) > 8 else ''}")
        with local_output(output) as written:
            _write(dataclasses.replace(checkpoint, weights=weights, left_out=()), written, to, images, path)
            _check(weights, written, to)
    except PretrainedError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"--output={output} cannot be written: {error.strerror or error}.") from error
    log(f"{output}: {len(weights)} arrays, verified by reading them back")
    return architecture


def describe(weights: Mapping[str, np.ndarray]) -> str:
    """Returns in a line what the weights belong to."""
    architecture = Architecture.of(weights)
    sizes = f"depths {_list(architecture.depths)}, channels {_list(architecture.dims)}"
    parts = "an encoder"
    if architecture.num_classes:
        parts += f" with a head for {architecture.num_classes:,} classes"
    if any(name.startswith(DECODER) for name in weights):
        parts += " with a decoder"
    parameters = sum(value.size for value in weights.values())
    return f"ConvNeXt V{architecture.version}, {sizes}: {parts}, {parameters:,} parameters"


def _list(numbers: Iterable[int]) -> str:
    return "-".join(map(str, numbers))


def _chosen(weights: dict[str, np.ndarray], part: str, to: str, log: Log) -> dict[str, np.ndarray]:
    encoder = {name: value for name, value in weights.items() if not name.startswith(DECODER) and name not in HEAD}
    if part == "encoder":
        return encoder
    if "head/kernel" not in weights and any(name in weights for name in HEAD_NORM) and to == "keras":
        log("the source has no classifier: the normalization before it is left out")
        weights = {name: value for name, value in weights.items() if name not in HEAD_NORM}
    decoder = [name for name in weights if name.startswith(DECODER)]
    if decoder and to in ("timm", "huggingface"):
        log(f"{to} has no place for the decoder: its {len(decoder)} arrays are left out")
        return {name: value for name, value in weights.items() if name not in decoder}
    return weights


def _image_settings(
    path: pathlib.Path, checkpoint: Checkpoint, image_size: int | tuple[int, ...] | None
) -> ImageSettings:
    """Returns the `ImageSettings` of the run that the weights are of, or those of ImageNet."""
    config, settings = recorded_config(path), ImageSettings()
    if config is not None:
        data = config.data
        mean, std = cast(tuple[float, ...], data.mean), cast(tuple[float, ...], data.std)
        settings = ImageSettings(height_and_width(data.image_size), mean, std, data.evaluation_crop)
        if "head/bias" in checkpoint.weights:
            settings = dataclasses.replace(settings, classes=tuple(recorded_classes(path) or ()))
    elif (channels := checkpoint.weights["stem/conv/kernel"].shape[2]) != len(settings.mean):
        settings = dataclasses.replace(settings, mean=(0.5,) * channels, std=(0.25,) * channels)
    return settings if image_size is None else dataclasses.replace(settings, size=height_and_width(image_size))


def _write(checkpoint: Checkpoint, output: pathlib.Path, to: str, images: ImageSettings, path: pathlib.Path) -> None:
    if output.is_dir() and to in ("keras", "fair"):
        raise UserError(f"--output={output} is a folder: name a file.")
    if to != "keras":
        write_weights(checkpoint.weights, output, to, images, checkpoint.options)
        return
    if not output.name.endswith((".keras", ".weights.h5")):
        raise UserError(f"--output={output}: name a .keras or .weights.h5 file, or a library with --to.")
    model = _make_keras_model(checkpoint, images.size, path)
    output.parent.mkdir(parents=True, exist_ok=True)
    with appearing(output) as temporary:
        if output.suffix == ".keras":
            model.save(temporary)
        else:
            model.save_weights(temporary)


def _make_keras_model(checkpoint: Checkpoint, size: tuple[int, int], path: pathlib.Path) -> ConvNeXt | FCMAE:
    """Returns the `ConvNeXt` or `FCMAE` that the weights are all of."""
    weights = checkpoint.weights
    architecture = Architecture.of(weights, path, checkpoint.options)
    if f"{DECODER}mask_token" not in weights:
        model = make_model(architecture, name="classifier" if architecture.num_classes else "encoder")
    else:
        shape = (*size, architecture.channels)
        backbone = make_model(architecture, include_top=False, input_shape=shape, name="encoder")
        depth = sum(name.startswith(DECODER) and name.endswith("norm/gamma") for name in weights)
        dim = weights[f"{DECODER}mask_token"].size
        try:
            model = FCMAE(backbone, decoder_dim=dim, decoder_depth=depth, name="fcmae")
        except ValueError as error:
            raise UserError(f"--image_size={size_text(size)}: {error}") from error
    assign_weights(model, checkpoint, path)
    return model


def _check(weights: Mapping[str, np.ndarray], output: pathlib.Path, to: str) -> None:
    """Raises RuntimeError if what was written does not read back as the same weights."""
    written = read_weights(output / "model.safetensors" if output.is_dir() else output)
    different = [
        name
        for name, value in weights.items()
        if name not in written or not np.array_equal(written[name], value, equal_nan=True)
    ]
    added = written.keys() - weights.keys() - (set(HEAD_NORM) if to == "timm" else set())
    if different or added:
        raise RuntimeError(f"{output} does not hold the weights that were to be written: {different[:4]}.")
