"""Weights as `{our name: array}`, from any file that is known and to any library that is known."""

import json
import pathlib
import re

from convnext.weights import fair, formats, huggingface, timm
from convnext.weights.architecture import Architecture
from convnext.weights.errors import PretrainedError
from convnext.weights.names import recognise

SCHEMES = (
    fair.DENSE_SCHEME,
    fair.SPARSE_SCHEME,
    timm.READING,
    huggingface.V2,
    huggingface.V1,
    huggingface.BARE,
)
LIBRARIES = ("fair", "timm", "huggingface")
SHARD = re.compile(r"-\d+-of-\d+\.")
KINDS = ".keras, .weights.h5, .safetensors, .pt or .pth"


def read_weights(path, key=None):
    """Reads the weights of a ConvNeXt, or of an autoencoder around one, whatever library they come from.

    Args:
        path: a `.keras`, `.weights.h5`, `.safetensors`, `.pt` or `.pth` file. Names and layouts of the last three may
            be those of the authors' code (dense or sparse), of timm or of Transformers.
        key: entry of a PyTorch checkpoint that holds the weights; by default `model`, `model_ema` or `state_dict`,
            the first that is there.

    Returns:
        `{name: array}`, float32, names and layouts as `convnext.weights.loader.named_variables` has them.

    Raises:
        PretrainedError: if the file cannot be read, or is no ConvNeXt.
    """
    path = pathlib.Path(path)
    if key is not None and path.suffix not in formats.PYTORCH:
        raise PretrainedError(f"{path} has no entries to choose {key!r} from; .pt and .pth files have.")
    if path.name.endswith((".keras", ".weights.h5")):
        return formats.read_keras(path)
    if SHARD.search(path.name):
        raise PretrainedError(f"{path} is one part of several: save the model in one file.")
    if path.suffix == formats.SAFETENSORS:
        tensors = formats.read_safetensors(path)
    elif path.suffix in formats.PYTORCH:
        tensors = formats.read_pytorch(path, key)
    else:
        raise PretrainedError(f"{path} is not a kind of weights that can be read: it should be a {KINDS} file.")
    try:
        return recognise(tensors, SCHEMES).read(tensors)
    except PretrainedError as error:
        raise PretrainedError(f"{path}: {error}.") from error


def write_weights(weights, path, library, image_size=224):
    """Writes weights for another library.

    Args:
        weights: `{our name: array}`, of a backbone with or without head; `fair` takes an autoencoder's as well, and
            writes it in the layout of their sparse convolutions.
        path: of a `.safetensors`, `.pt` or `.pth` file; for `huggingface` of a folder, which takes `model.safetensors`
            and `config.json`.
        library: one of `LIBRARIES`.
        image_size: side in pixels of the images, for Transformers' configuration.

    Raises:
        PretrainedError: if the library has no place for a weight, or the file has another kind of name.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    architecture = Architecture.of(weights)
    tensors = _writing_scheme(library, weights, architecture).write(weights)
    if library == "huggingface":
        if path.suffix in (formats.SAFETENSORS, *formats.PYTORCH) or path.is_file():
            raise PretrainedError(f"{path}: name a folder for Transformers.")
        path.mkdir(parents=True, exist_ok=True)
        config = json.dumps(huggingface.model_config(architecture, image_size), indent=2) + "\n"
        formats.write_safetensors(tensors, path / "model.safetensors")
        with formats.replacing(path / "config.json") as temporary:
            temporary.write_text(config, encoding="utf-8")
    elif path.suffix == formats.SAFETENSORS:
        formats.write_safetensors(tensors, path)
    elif path.suffix in formats.PYTORCH:
        formats.write_pytorch(tensors, path)
    else:
        raise PretrainedError(f"{path}: name a .safetensors, .pt or .pth file for {library}.")


def _writing_scheme(library, weights, architecture):
    if library == "fair":
        has_decoder = any(name.startswith("decoder/") for name in weights)
        return fair.SPARSE_SCHEME if has_decoder else fair.DENSE_SCHEME
    if library == "timm":
        return timm.writing_scheme(architecture)
    if library == "huggingface":
        return huggingface.writing_scheme(architecture)
    raise PretrainedError(f"{library!r} is not one of {', '.join(LIBRARIES)}.")
