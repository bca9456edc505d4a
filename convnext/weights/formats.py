"""Files of arrays: PyTorch's `.pt` and `.pth`, `.safetensors`, and Keras's `.keras` and `.weights.h5`.

No reader runs code from a file. PyTorch is needed for `.pt` and `.pth` alone.
"""

import contextlib
import errno
import io
import os
import pathlib
import re
import warnings
import zipfile
import zlib

import h5py
import ml_dtypes  # teaches NumPy the bfloat16 that safetensors reads
import numpy as np
import safetensors
import safetensors.numpy

from convnext.weights.errors import PretrainedError

PYTORCH = (".pt", ".pth")
SAFETENSORS = ".safetensors"
# Where a training script keeps the weights in what it saves.
CHECKPOINT_KEYS = ("model", "model_ema", "state_dict")
# The weights of a layer in a Keras file have numbers for names.
KERAS_WEIGHTS = {"norm": ("gamma", "beta"), "head_norm": ("gamma", "beta"), "grn": ("gamma", "beta")}
KERAS_WEIGHTS |= {"layer_scale": ("gamma",), "decoder": ("mask_token",)}
KERNEL_AND_BIAS = ("kernel", "bias")
# What PyTorch says where a pickle names a class that is not let through.
REFUSED_CLASS = re.compile(r"GLOBAL (\S+)")
# What damage to a Keras file leads to.
DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, IndexError, OSError, ValueError, TypeError, RuntimeError, EOFError)
MOST_COMPRESSED = 100  # times that weights may be smaller in a file; a bomb is so by more
TEMPORARY = ".unfinished-"  # what the names of files begin with while they are written


def read_pytorch(path, key=None):
    """Returns `{name: array}` of a PyTorch checkpoint.

    Args:
        path: of a `.pt` or `.pth` file.
        key: entry of the checkpoint that holds the weights; by default the first there is of `CHECKPOINT_KEYS`, or
            the checkpoint itself.

    Raises:
        PretrainedError: if PyTorch is not installed, the file cannot be read or would have to run code, or holds no
            weights there.
    """
    try:
        import torch
    except ImportError as error:
        raise PretrainedError(
            f"{path} can be read where PyTorch is: pip install torch, or convert it there."
        ) from error
    _refuse_text(path)
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


def read_safetensors(path):
    """Returns `{name: array}` of a `.safetensors` file.

    Raises:
        PretrainedError: if it cannot be read.
    """
    _refuse_text(path)
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise PretrainedError(f"{path} is no safetensors file, or it is cut short: {_first_line(error)}.") from error


def read_keras(path):
    """Returns `{our name: array}` of a `.keras` or `.weights.h5` file: of a backbone, or of an autoencoder.

    The layers' own names stand in the file. The state of optimizers and random generators is left aside.

    Raises:
        PretrainedError: if it cannot be read.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("model.weights.h5").file_size > MOST_COMPRESSED * path.stat().st_size:
                    raise ValueError("it declares more weights than fit into a file of its size")
                content = io.BytesIO(archive.read("model.weights.h5"))
        else:
            content = path
        with h5py.File(content) as file:
            return _named_arrays(file)
    except DAMAGE as error:
        raise PretrainedError(f"{path} is no Keras file, or it is cut short: {_first_line(error)}.") from error


def write_pytorch(tensors, path):
    """Writes `{name: array}` as the authors' scripts save it: `{"model": tensors}`.

    Raises:
        PretrainedError: if PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise PretrainedError(f"{path} can be written where PyTorch is; .safetensors needs none.") from error
    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    with replacing(path) as temporary:
        torch.save({"model": state}, temporary)


def write_safetensors(tensors, path):
    """Writes `{name: array}` as a `.safetensors` file that PyTorch's libraries read."""
    with replacing(path) as temporary:
        tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        safetensors.numpy.save_file(tensors, temporary, metadata={"format": "pt"})


@contextlib.contextmanager
def replacing(path):
    """Gives a temporary path beside `path`, of the same suffix, which takes its place once it is whole."""
    path = pathlib.Path(path)
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        yield temporary
        flush_to_disk(temporary)  # or the machine may go down with the name on the disk and the content not
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path):
    """Waits until what was written to a file is on the disk; of a folder, the names in it."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without it
            raise
    finally:
        os.close(file)


def _named_arrays(file):
    arrays = {}

    def visit(path, item):
        if isinstance(item, h5py.Dataset) and not path.startswith("optimizer/") and "seed_generator" not in path:
            _refuse_elsewhere(item)
            # Keras writes bfloat16 as two bytes, and says so beside them.
            kind = ml_dtypes.bfloat16 if item.attrs.get("dtype") == "bfloat16" else item.dtype
            arrays[_our_name(file, path)] = np.array(item).view(kind).astype("float32")

    file.visititems(visit)
    return arrays


def _refuse_elsewhere(dataset):
    """Raises ValueError if the values of an HDF5 dataset are in another file, or are not stored at all."""
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{dataset.name} takes its values from another file")
    if dataset.nbytes > MOST_COMPRESSED * dataset.id.get_storage_size():
        raise ValueError(f"{dataset.name} declares {dataset.nbytes:,} bytes, which the file does not have")


def _our_name(file, path):
    """`layers/stage_1/blocks/conv_next_v2_block/norm/vars/0` to `stage_1/block_0/norm/gamma`."""
    *groups, _, index = path.split("/")
    if groups[:1] == ["backbone"]:
        file, groups = file["backbone"], groups[1:]
    layers = ["/".join(groups[: i + 1]) for i in range(len(groups))]
    names = [file[f"{layer}/vars"].attrs["name"] for layer in layers if f"{layer}/vars" in file]
    names_of_weights = KERAS_WEIGHTS.get(names[-1], KERNEL_AND_BIAS) if names else ()
    if int(index) >= len(names_of_weights):
        raise ValueError(f"{path} is no weight of a ConvNeXt.")
    return "/".join([*names, names_of_weights[int(index)]])


def _state_dict(checkpoint, key, path):
    if not isinstance(checkpoint, dict):
        raise PretrainedError(f"{path} holds no state_dict but a {type(checkpoint).__name__}.")
    if key is not None and key not in checkpoint:
        raise PretrainedError(f"{path} has no entry {key!r}; it has {', '.join(map(str, list(checkpoint)[:8]))}.")
    found = [key] if key is not None else [name for name in CHECKPOINT_KEYS if isinstance(checkpoint.get(name), dict)]
    state = checkpoint[found[0]] if found else checkpoint
    if not isinstance(state, dict):
        raise PretrainedError(f"{path}: the entry {key!r} holds no weights.")
    return state


def _is_array(value, torch):
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_meta
        and not value.is_quantized
        and value.is_floating_point()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()  # a view can declare any size
    )


def _check_archive(path):
    """Raises PretrainedError if a checksum of a PyTorch archive is wrong; PyTorch does not look at them."""
    if not zipfile.is_zipfile(path):  # the older format has none
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except DAMAGE as error:
        raise PretrainedError(f"{path} is damaged, or it is cut short: {_first_line(error)}.") from error
    if damaged:
        raise PretrainedError(f"{path} is damaged: the checksum of {damaged} in it is wrong.")


def _refuse_text(path):
    """Raises PretrainedError if the file is not there, or begins as a web page does."""
    try:
        with open(path, "rb") as file:
            begin = file.read(64)
    except OSError as error:
        raise PretrainedError(f"{path} cannot be read: {error.strerror}.") from error
    begin = begin.removeprefix(b"\xef\xbb\xbf").lstrip()
    if begin[:1] == b"<":
        shown = begin.decode("utf-8", "replace").splitlines()[0]
        raise PretrainedError(f"{path} is a web page ({shown[:40]}), not weights: download it again.")


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
