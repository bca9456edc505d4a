"""Files of weights, one reader and one writer per format; names are those of `convnext.weights.names`.

No reader runs code from a file. Only PyTorch's own files (`.pt`, `.pth`, `.bin`, `.ckpt`) need PyTorch.
"""

import dataclasses
import io
import json
import os
import pathlib
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import h5py
import ml_dtypes  # teaches NumPy the bfloat16 that safetensors reads
import numpy as np
import safetensors

from convnext.layers import EPSILON
from convnext.weights.architecture import Architecture, PretrainedError, options_of, read_options
from convnext.weights.folders import ImageSettings, replace, write_folder, write_safetensors
from convnext.weights.names import HEAD, HEAD_NORM, to_theirs, weights_of
from convnext.weights.recognition import Checkpoint, find_convnext

KERAS, SAFETENSORS, PYTORCH = (".keras", ".weights.h5"), ".safetensors", (".pt", ".pth", ".bin", ".ckpt", ".tar")
WRITTEN = (SAFETENSORS, ".pt", ".pth")
KINDS = "Keras, safetensors or PyTorch"
SHARD = re.compile(r"-\d+-of-\d+\.")
INDEX = ".safetensors.index.json"  # of a model in several files
FLOATS = ("F64", "F32", "F16", "BF16")
# What PyTorch says where a pickle names a class that is not let through.
REFUSED_CLASS = re.compile(r"GLOBAL (\S+)")
# What damage to an archive or to a Keras file leads to.
DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, IndexError, OSError, ValueError, TypeError, RuntimeError, EOFError)
MASK_TOKEN = "decoder/vars/0"  # of an autoencoder, in a file of Keras
MOST_COMPRESSED = 100  # times that weights may be smaller in a file; a bomb is so by more
# Types of plain data that training scripts save beside weights. `_Ignored` stands in for them, so none of them is made.
PLAIN_DATA = (
    "argparse.Namespace",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(
        f"pathlib.{place}{kind}Path"
        for place in ("", "_local.")
        for kind in ("Posix", "PurePosix", "Windows", "PureWindows")
    ),
)


def read_weights(path: str | os.PathLike, key: str | None = None) -> dict[str, np.ndarray]:
    """Returns the `weights` of `read_checkpoint`: `{name: array}`, float32, as `loader.named_variables` has them."""
    return read_checkpoint(path, key).weights


def read_checkpoint(path: str | os.PathLike, key: str | None = None) -> Checkpoint:
    """Reads the weights of a ConvNeXt, or of an autoencoder around one, whatever library they come from.

    The content tells the kind of the file, not its name. Names and layouts in files of safetensors and PyTorch may be
    those of the authors' code (dense or sparse), of timm or of Transformers, in any entry and behind any prefix.

    Args:
        path: of a file of Keras (`.keras`, `.weights.h5`), safetensors or PyTorch.
        key: what to take of a file that holds several ConvNeXts: an entry, such as `model_ema`, or a prefix, such as
            `teacher.backbone`.

    Raises:
        PretrainedError: if the file cannot be read, would have to run code, or holds no ConvNeXt or several.
    """
    path = pathlib.Path(path)
    if SHARD.search(path.name):
        raise PretrainedError(f"{path} is one part of several: name the folder, or save the model in one file.")
    kind = _kind(path)
    if kind == KERAS:
        if key is not None:
            raise PretrainedError(f"{path} has no entries to choose {key!r} from; only PyTorch files do.")
        return _read_keras(path)
    if kind == PYTORCH:
        states = _read_pytorch(path)
    else:
        states = {"": _read_parts(path) if kind == INDEX else _read_safetensors(path)}
    try:
        checkpoint = find_convnext(states, key, _as_array)
    except PretrainedError as error:
        raise PretrainedError(f"{path}: {error}.") from error
    options = read_options(path)
    if options.pop("head_epsilon", EPSILON) > EPSILON:  # which no head of ours has
        head = [name for name in checkpoint.weights if name in HEAD]
        weights = {name: value for name, value in checkpoint.weights.items() if name not in head}
        checkpoint = dataclasses.replace(checkpoint, weights=weights, left_out=(*checkpoint.left_out, *head))
    return dataclasses.replace(checkpoint, options=options)


def _kind(path: pathlib.Path) -> Any:
    """Returns `KERAS`, `SAFETENSORS`, `INDEX` or `PYTORCH`, by content, or else by name; checks archives for damage."""
    if path.exists() and not path.is_file():
        raise PretrainedError(f"{path} is not a file.")
    if path.name.endswith(INDEX):
        return INDEX
    try:
        with open(path, "rb") as file:
            begin = file.read(64)
        names = _names_in_archive(path) if zipfile.is_zipfile(path) else []
    except OSError as error:
        raise PretrainedError(f"{path} cannot be read: {error.strerror}.") from error
    except DAMAGE as error:
        raise PretrainedError(f"{path} is damaged, or it is truncated: {_first_line(error)}.") from error
    if "model.weights.h5" in names or begin.startswith(b"\x89HDF\r\n\x1a\n"):
        return KERAS
    if any(name.endswith("data.pkl") for name in names):
        return PYTORCH
    if not begin:
        raise PretrainedError(f"{path} is empty, or truncated: download it again.")
    if begin[8:9] == b"{":
        return SAFETENSORS
    text = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"<":
        shown = text.decode("utf-8", "replace").splitlines()[0]
        raise PretrainedError(f"{path} is a web page ({shown[:40]}), not weights: download it again.")
    for kind in (KERAS, SAFETENSORS, PYTORCH):
        if path.name.endswith(kind):
            return kind
    if begin.startswith(b"\x80"):  # a pickle, as PyTorch wrote before version 1.6
        return PYTORCH
    raise PretrainedError(
        f"{path} is not a kind of weights that can be read, or it is truncated: it should be a {KINDS} file."
    )


def _names_in_archive(path: pathlib.Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_COMPRESSED * path.stat().st_size:
            raise ValueError("it declares more weights than fit into a file of its size")
        if damaged := archive.testzip():  # PyTorch does not look
            raise ValueError(f"the checksum of {damaged} in it is wrong")
        return archive.namelist()


def write_weights(
    weights: Mapping[str, np.ndarray],
    path: str | os.PathLike,
    library: str,
    images: ImageSettings | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Writes weights for another library.

    Args:
        weights: `{our name: array}`, of a backbone with or without head; `fair` takes an autoencoder's as well, and
            writes it in the layout of their sparse convolutions.
        path: of a `.safetensors`, `.pt` or `.pth` file; for `huggingface` of a folder, for `timm` of either.
        library: one of `convnext.weights.LIBRARIES`.
        images: how images are prepared, for the configuration in a folder; by default as those of ImageNet.
        options: of the model, see `Checkpoint`.

    Raises:
        PretrainedError: if the library has no place for a weight, or the file has another kind of name.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    architecture = Architecture.of(weights, options=options)
    tensors = to_theirs(weights, library, architecture)
    if library == "timm" and HEAD_NORM[0] not in weights:
        # timm's models have this normalization, without a head too, and load no file without its weights.
        width = architecture.dims[-1]
        new = {"head.norm.weight": np.ones(width, "float32"), "head.norm.bias": np.zeros(width, "float32")}
        tensors = {**tensors, **new}
    if path.suffix in WRITTEN and library != "huggingface":
        write = write_safetensors if path.suffix == SAFETENSORS else _write_pytorch
        write(tensors, path)
    elif library == "fair":
        raise PretrainedError(f"{path}: name a .safetensors, .pt or .pth file for {library}.")
    elif path.suffix or path.is_file():
        files = " or a .safetensors, .pt or .pth file" if library == "timm" else ""
        raise PretrainedError(f"{path}: name a folder{files} for {library}.")
    else:
        write_folder(tensors, path, library, architecture, images or ImageSettings())


def _read_keras(path: pathlib.Path) -> Checkpoint:
    """Reads a `.keras` file, or a `.weights.h5` file, which has no options, without optimizers and random generators.

    Of a model around an encoder that is not an autoencoder, such as a `Segmenter`, it takes the encoder.
    """
    try:
        content: pathlib.Path | io.BytesIO = path
        options, places = {}, []
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(archive.read("model.weights.h5"))
                config = json.loads(archive.read("config.json"))["config"]
            options = options_of(config["backbone"]["config"] if "backbone" in config else config)

        def visit(place: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and not place.startswith("optimizer/") and "seed_generator" not in place:
                places.append(place)

        with h5py.File(content) as file:
            file.visititems(visit)
            taken = [place for place in places if place.startswith("backbone/")]
            if not taken or MASK_TOKEN in places:
                taken = places
            arrays = {}
            for place in taken:  # an array that takes its values from elsewhere is refused before its name is looked up
                arrays[_our_name(file, place)] = _read_dataset(file[place])
        return Checkpoint(arrays, options, left_out=tuple(place for place in places if place not in taken))
    except (*DAMAGE, AttributeError) as error:
        raise PretrainedError(f"{path} is damaged, truncated or not a Keras file: {_first_line(error)}.") from error


def _read_dataset(dataset: h5py.Dataset) -> np.ndarray:
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{dataset.name} takes its values from another file")
    if dataset.nbytes > MOST_COMPRESSED * dataset.id.get_storage_size():
        raise ValueError(f"{dataset.name} declares {dataset.nbytes:,} bytes, which the file does not have")
    # Keras writes bfloat16 as two bytes, and says so beside them.
    kind = ml_dtypes.bfloat16 if dataset.attrs.get("dtype") == "bfloat16" else dataset.dtype
    return np.array(dataset).view(kind).astype("float32")


def _our_name(file: h5py.File, place: str) -> str:
    """`layers/stage_1/blocks/conv_next_v2_block/norm/vars/0` to `stage_1/block_0/norm/gamma`."""
    *groups, _, index = place.split("/")
    if groups[:1] == ["backbone"]:
        file, groups = file["backbone"], groups[1:]
    layers = ["/".join(groups[: i + 1]) for i in range(len(groups))]
    names = [file[f"{layer}/vars"].attrs["name"] for layer in layers if f"{layer}/vars" in file]
    weights = weights_of(f"{names[-1]}") if names else ()
    if int(index) >= len(weights):
        raise ValueError(f"{place} is no weight of a ConvNeXt.")
    return "/".join([*names, weights[int(index)]])


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns `{name: array}` of the floating-point tensors in a file."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names if file.get_slice(name).get_dtype() in FLOATS}
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise PretrainedError(f"{path} is not a safetensors file, or it is truncated: {_first_line(error)}.") from error


def _read_parts(index: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns what `_read_safetensors` does, of all files beside an index that it names."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        parts = [index.with_name(name) for name in names]  # which raises for a path
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PretrainedError(f"{index} is no index of safetensors files: {_first_line(error)}.") from error
    return {name: array for part in parts for name, array in _read_safetensors(part).items()}


def _read_pytorch(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns `{entry: {name: tensor}}` of the floating-point tensors that a checkpoint holds at any depth."""
    torch = _import_torch(f"{path} needs PyTorch to be read: pip install torch, or convert it where that is installed.")
    stand_ins = [(_Ignored, name) for name in PLAIN_DATA]
    try:
        with open(path, "rb") as file, warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the damage leads to, or a class that is not let through
        refused = REFUSED_CLASS.search(str(error))
        if refused or "TorchScript" in str(error):
            what = f"it names {refused[1]}" if refused else "it is a TorchScript program"
            raise PretrainedError(
                f"{path} would have to run code, which is refused: {what}. Load it where you trust it, and save its "
                "state_dict alone."
            ) from error
        raise PretrainedError(
            f"{path} cannot be read: it is not a PyTorch file, it is damaged or truncated, or it holds more than "
            f"tensors and plain data ({_first_line(error).partition('. ')[0]})."
        ) from error
    if not isinstance(checkpoint, (dict, list, tuple)):
        raise PretrainedError(f"{path} holds a {type(checkpoint).__name__}, not a state_dict.")
    states: dict[str, dict[str, Any]] = {}
    waiting, seen = [("", checkpoint)], set()  # a container may hold itself
    for place, content in waiting:
        if id(content) in seen:
            continue
        seen.add(id(content))
        for name, value in content.items() if isinstance(content, dict) else enumerate(content):
            if isinstance(value, (dict, list, tuple)):
                waiting.append((f"{place}.{name}" if place else f"{name}", value))
            elif isinstance(value, torch.Tensor) and value.is_floating_point():
                states.setdefault(place, {})[f"{name}"] = value
    return states


class _Ignored:
    """Takes the place of an object of plain data beside the weights, and drops what is in it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _as_array(name: str, tensor: Any) -> np.ndarray:
    """Returns the array of a tensor of PyTorch, or one of NumPy as it is."""
    if isinstance(tensor, np.ndarray):
        return tensor
    is_array = str(tensor.layout) == "torch.strided" and not tensor.is_meta
    # A view can declare any size.
    if not is_array or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise PretrainedError(f"{name} is not an array in memory")
    return tensor.detach().float().numpy()


def _write_pytorch(tensors: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Writes tensors as the authors' scripts save them: `{"model": tensors}`."""
    torch = _import_torch(f"{path} needs PyTorch to be written; a .safetensors file does not.")
    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    replace(path, lambda temporary: torch.save({"model": state}, temporary))


def _import_torch(advice: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise PretrainedError(advice) from error
    return torch


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
