"""Files of weights, one reader and one writer a format; names are those of `convnext.weights.names`.

No reader runs code from a file. PyTorch is needed for `.pt` and `.pth` alone.
"""

import io
import json
import os
import pathlib
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import ml_dtypes  # teaches NumPy the bfloat16 that safetensors reads
import numpy as np
import safetensors
import safetensors.numpy

from convnext.layers import EPSILON
from convnext.weights.architecture import Architecture, PretrainedError
from convnext.weights.names import to_ours, to_theirs, weights_of

KERAS, SAFETENSORS, PYTORCH = (".keras", ".weights.h5"), ".safetensors", (".pt", ".pth")
KINDS = ".keras, .weights.h5, .safetensors, .pt or .pth"
SHARD = re.compile(r"-\d+-of-\d+\.")
# Where a training script keeps the weights in what it saves.
CHECKPOINT_KEYS = ("model", "model_ema", "state_dict")
# What PyTorch says where a pickle names a class that is not let through.
REFUSED_CLASS = re.compile(r"GLOBAL (\S+)")
# What damage to an archive or to a Keras file leads to.
DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, IndexError, OSError, ValueError, TypeError, RuntimeError, EOFError)
MOST_COMPRESSED = 100  # times that weights may be smaller in a file; a bomb is so by more


def read_weights(path: str | os.PathLike, key: str | None = None) -> dict[str, np.ndarray]:
    """Reads the weights of a ConvNeXt, or of an autoencoder around one, whatever library they come from.

    Args:
        path: a `.keras`, `.weights.h5`, `.safetensors`, `.pt` or `.pth` file. Names and layouts of the last three may
            be those of the authors' code (dense or sparse), of timm or of Transformers.
        key: entry of a PyTorch checkpoint that holds the weights; by default `model`, `model_ema` or `state_dict`,
            the first that is there, or the checkpoint itself.

    Returns:
        `{name: array}`, float32, names and layouts as `convnext.weights.loader.named_variables` has them.

    Raises:
        PretrainedError: if the file cannot be read, would have to run code, or is no ConvNeXt.
    """
    path = pathlib.Path(path)
    if key is not None and path.suffix not in PYTORCH:
        raise PretrainedError(f"{path} has no entries to choose {key!r} from; .pt and .pth files have.")
    is_keras = path.name.endswith(KERAS)
    if SHARD.search(path.name) and not is_keras:
        raise PretrainedError(f"{path} is one part of several: save the model in one file.")
    if path.suffix not in (SAFETENSORS, *PYTORCH) and not is_keras:
        raise PretrainedError(f"{path} is not a kind of weights that can be read: it should be a {KINDS} file.")
    try:
        if is_keras:
            return _read_keras(path)
        tensors = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_pytorch(path, key)
    except PretrainedError:
        _check_download(path)
        raise
    try:
        return to_ours(tensors)
    except PretrainedError as error:
        raise PretrainedError(f"{path}: {error}.") from error


def write_weights(
    weights: Mapping[str, np.ndarray], path: str | os.PathLike, library: str, image_size: int = 224
) -> None:
    """Writes weights for another library.

    Args:
        weights: `{our name: array}`, of a backbone with or without head; `fair` takes an autoencoder's as well, and
            writes it in the layout of their sparse convolutions.
        path: of a `.safetensors`, `.pt` or `.pth` file; for `huggingface` of a folder, which takes `model.safetensors`
            and `config.json`.
        library: one of `convnext.weights.LIBRARIES`.
        image_size: side in pixels of the images, for Transformers' configuration.

    Raises:
        PretrainedError: if the library has no place for a weight, or the file has another kind of name.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    architecture = Architecture.of(weights)
    tensors = to_theirs(weights, library, architecture)
    is_file = path.suffix in (SAFETENSORS, *PYTORCH)
    if library == "huggingface":
        if is_file or path.is_file():
            raise PretrainedError(f"{path}: name a folder for Transformers.")
        config = json.dumps(_transformers_config(architecture, image_size), indent=2) + "\n"
        path.mkdir(parents=True, exist_ok=True)
        _write_safetensors(tensors, path / "model.safetensors")
        _replace(path / "config.json", lambda temporary: temporary.write_text(config, encoding="utf-8"))
    elif not is_file:
        raise PretrainedError(f"{path}: name a .safetensors, .pt or .pth file for {library}.")
    elif path.suffix == SAFETENSORS:
        _write_safetensors(tensors, path)
    else:
        _write_pytorch(tensors, path)


def _read_keras(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns `{our name: array}` of a `.keras` or `.weights.h5` file: of a backbone, or of an autoencoder.

    The layers' own names stand in the file. The state of optimizers and random generators is left aside.
    """
    try:
        content: pathlib.Path | io.BytesIO = path
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("model.weights.h5").file_size > MOST_COMPRESSED * path.stat().st_size:
                    raise ValueError("it declares more weights than fit into a file of its size")
                content = io.BytesIO(archive.read("model.weights.h5"))
        arrays = {}

        def visit(place: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and not place.startswith("optimizer/") and "seed_generator" not in place:
                arrays[_our_name(item.file, place)] = _read_dataset(item)

        with h5py.File(content) as file:
            file.visititems(visit)
        return arrays
    except DAMAGE as error:
        raise PretrainedError(f"{path} is no Keras file, or it is cut short: {_first_line(error)}.") from error


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
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise PretrainedError(f"{path} is no safetensors file, or it is cut short: {_first_line(error)}.") from error


def _write_safetensors(tensors: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    _replace(path, lambda temporary: safetensors.numpy.save_file(tensors, temporary, metadata={"format": "pt"}))


def _read_pytorch(path: pathlib.Path, key: str | None) -> dict[str, np.ndarray]:
    torch = _import_torch(f"{path} can be read where PyTorch is: pip install torch, or convert it there.")
    _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the damage leads to, or a class that is not let through
        refused = REFUSED_CLASS.search(str(error))
        because = f" It names {refused[1]}." if refused else ""
        raise PretrainedError(
            f"{path} cannot be read as tensors alone: it is no PyTorch file, it is cut short, or it would have to run "
            f"code, which is refused.{because} Download it again, or save its state_dict alone."
        ) from error
    state = _state_dict(checkpoint, key, path)
    wrong = [name for name, value in state.items() if not isinstance(name, str) or not _is_array(value, torch)]
    if wrong:
        raise PretrainedError(f"{path} holds things that are no arrays of weights: {', '.join(map(str, wrong[:4]))}.")
    return {name.removeprefix("module."): value.detach().float().numpy() for name, value in state.items()}


def _state_dict(checkpoint: Any, key: str | None, path: pathlib.Path) -> dict[str, Any]:
    if not isinstance(checkpoint, dict):
        raise PretrainedError(f"{path} holds no state_dict but a {type(checkpoint).__name__}.")
    if key is not None and key not in checkpoint:
        raise PretrainedError(f"{path} has no entry {key!r}; it has {', '.join(map(str, list(checkpoint)[:8]))}.")
    found = [key] if key is not None else [name for name in CHECKPOINT_KEYS if isinstance(checkpoint.get(name), dict)]
    state = checkpoint[found[0]] if found else checkpoint
    if not isinstance(state, dict):
        raise PretrainedError(f"{path}: the entry {key!r} holds no weights.")
    return state


def _is_array(value: Any, torch: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_meta
        and value.is_floating_point()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()  # a view can declare any size
    )


def _check_archive(path: pathlib.Path) -> None:
    """Checks the checksums of a PyTorch archive, which PyTorch does not; the older format has none."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except DAMAGE as error:
        raise PretrainedError(f"{path} is damaged, or it is cut short: {_first_line(error)}.") from error
    if damaged:
        raise PretrainedError(f"{path} is damaged: the checksum of {damaged} in it is wrong.")


def _write_pytorch(tensors: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Writes tensors as the authors' scripts save them: `{"model": tensors}`."""
    torch = _import_torch(f"{path} can be written where PyTorch is; .safetensors needs none.")
    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    _replace(path, lambda temporary: torch.save({"model": state}, temporary))


def _import_torch(advice: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise PretrainedError(advice) from error
    return torch


def _transformers_config(architecture: Architecture, image_size: int) -> dict[str, Any]:
    """Returns the content of the `config.json` that Transformers reads beside the weights."""
    if architecture.kernel_size != 7:
        raise PretrainedError(f"Transformers has depthwise kernels of 7, not of {architecture.kernel_size}.")
    kind = "ConvNext" if architecture.version == 1 else "ConvNextV2"
    return {
        "architectures": [f"{kind}ForImageClassification" if architecture.num_classes else f"{kind}Model"],
        "model_type": kind.lower(),
        "depths": list(architecture.depths),
        "hidden_sizes": list(architecture.dims),
        "num_stages": len(architecture.depths),
        "num_channels": architecture.channels,
        "patch_size": architecture.stem_stride,
        "image_size": image_size,
        "hidden_act": "gelu",
        "layer_norm_eps": EPSILON,  # of the last normalization; Transformers' own default is 1e-12
        **({"num_labels": architecture.num_classes} if architecture.num_classes else {}),
    }


def _replace(path: pathlib.Path, save: Callable[[pathlib.Path], Any]) -> None:
    """Calls `save` with a temporary path beside `path`, and puts the file in its place once it is whole."""
    temporary = path.with_name(f".unfinished-{path.name}")
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_download(path: pathlib.Path) -> None:
    """Raises a PretrainedError of its own for a file that cannot be opened, or is a web page."""
    try:
        with open(path, "rb") as file:
            begin = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise PretrainedError(f"{path} cannot be read: {error.strerror}.") from error
    if begin[:1] == b"<":
        shown = begin.decode("utf-8", "replace").splitlines()[0]
        raise PretrainedError(f"{path} is a web page ({shown[:40]}), not weights: download it again.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
