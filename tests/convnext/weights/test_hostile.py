"""Files of weights that are damaged or malicious: loaded as they are, or refused in one line; they never run code."""

import argparse
import ast
import os
import pathlib
import pickle
import zipfile

import h5py
import keras
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from convnext.weights import Architecture, PretrainedError, read_weights, write_weights
from convnext.weights.loader import load_pretrained
from tests.comparison import to_numpy
from tests.fuzz import damaged, fuzzed
from tests.golden_weights import read
from tests.small_models import randomize, small_backbone, variables_of

ROOT = pathlib.Path(__file__).parents[3]
SUFFIXES = (".keras", ".weights.h5", ".safetensors")


@pytest.fixture(scope="module")
def model():
    model = small_backbone(depths=(1, 1), dims=(2, 3))
    randomize(variables_of(model))
    return model


@pytest.fixture(scope="module")
def contents(model, tmp_path_factory):
    """The bytes of a file of each kind, with the same weights."""
    folder = tmp_path_factory.mktemp("weights")
    model.save(folder / "x.keras")
    model.save_weights(folder / "x.weights.h5")
    write_weights(read_weights(folder / "x.keras"), folder / "x.safetensors", "fair")
    return {suffix: (folder / f"x{suffix}").read_bytes() for suffix in SUFFIXES}


def load(model, path):
    """Loads a file; returns what a person is told if it is refused, after the path, or None."""
    before = {name: to_numpy(variable) for name, variable in variables_of(model).items()}
    try:
        Architecture.of(read_weights(path), path)
        load_pretrained(model, path)
    except PretrainedError as error:
        assert str(error).startswith(str(path)) and len(str(error)) < 2000
        for name, variable in variables_of(model).items():
            np.testing.assert_array_equal(to_numpy(variable), before[name])
        return str(error).removeprefix(str(path))
    return None


@fuzzed(25)
@given(data=st.data())
def test_damaged_files_are_loaded_or_refused(model, contents, tmp_path_factory, data):
    suffix = data.draw(st.sampled_from(SUFFIXES))
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(data.draw(damaged(contents[suffix])))
    before = {name: to_numpy(variable) for name, variable in variables_of(model).items()}
    if load(model, path) is None and suffix == ".keras":  # which has checksums
        for name, variable in variables_of(model).items():
            np.testing.assert_array_equal(to_numpy(variable), before[name])
    path.write_bytes(contents[suffix])
    assert load(model, path) is None


@fuzzed(25)
@given(data=st.data())
def test_arrays_of_odd_names_and_shapes_are_refused(model, contents, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "odd.safetensors"
    tensors = safetensors.numpy.load(contents[".safetensors"])
    for name in data.draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, max_size=3)):
        shape = tuple(data.draw(st.lists(st.integers(0, 5), max_size=5)))
        kind = data.draw(st.sampled_from(("float32", "float16", "int8", "float64", "bool")))
        renamed = data.draw(st.sampled_from((name, name, name.replace("0", "99999999"), name + ".x", "")))
        tensors[renamed] = np.zeros(shape, kind)
    path.write_bytes(safetensors.numpy.save(tensors))
    load(model, path)
    path.write_bytes(contents[".safetensors"])
    assert load(model, path) is None


def test_a_lambda_in_a_keras_file_does_not_run(model, tmp_path):
    marker = tmp_path / "it ran"
    touch = keras.layers.Lambda(lambda x, path=str(marker): (__import__("pathlib").Path(path).touch(), x)[1])
    evil = keras.Sequential([keras.Input((2,)), touch])
    assert marker.exists()
    marker.unlink()
    evil.save(tmp_path / "evil.keras")
    assert load(model, tmp_path / "evil.keras").startswith((" does not fit", " does not have all weights"))
    assert not marker.exists()


class Evil:
    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self._path,)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".keras", ".safetensors", ".weights.h5"])
def test_a_malicious_pickle_does_not_run_whatever_it_is_called(model, tmp_path, suffix):
    marker, path = tmp_path / "it ran", tmp_path / f"evil{suffix}"
    path.write_bytes(pickle.dumps({"model": Evil(marker)}))
    assert load(model, path)
    assert not marker.exists()


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".pth.tar", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "place",
    [
        lambda evil, state: {"model": state, "args": evil},
        lambda evil, state: {"model": {**state, "stages.0.0.gamma": evil}},
        lambda evil, state: {"checkpoint": {"student": state, "best": [1, (evil,)]}},
        lambda evil, state: {"model": state, "args": argparse.Namespace(path=evil)},
        lambda evil, state: {evil: 1, "model": state},
    ],
)
def test_a_pickle_planted_beside_weights_does_not_run(model, tmp_path, suffix, zipped, place):
    torch = pytest.importorskip("torch")
    marker, path = tmp_path / "it ran", tmp_path / f"evil{suffix}"
    state = {name: torch.from_numpy(value) for name, value in read("fair_finetuned_small").items()}
    torch.save(place(Evil(marker), state), path, _use_new_zipfile_serialization=zipped)
    assert "which is refused: it names" in load(model, path)
    assert not marker.exists()


def test_weights_that_a_file_only_declares_are_refused(model, contents, tmp_path):
    path = tmp_path / "x.weights.h5"

    def refusal(change):
        path.write_bytes(contents[".weights.h5"])
        with h5py.File(path, "a") as file:
            group = file["stem/conv/vars"] if "stem" in file else next(iter(file.values()))
            change(group)
        return load(model, path)

    def elsewhere(group):
        secret = tmp_path / "secret"
        secret.write_bytes(bytes(64))
        group.create_dataset("9", (16,), "f4", external=[(str(secret), 0, 64)])

    def nowhere(group):
        group.create_dataset("9", (2**38,), "f4")

    assert "takes its values from another file" in refusal(elsewhere)
    assert "declares 1,099,511,627,776 bytes, which the file does not have" in refusal(nowhere)


@pytest.mark.parametrize("name", ["model.weights.h5", "x/data.pkl"])
def test_an_archive_that_unpacks_to_more_than_weights_can_is_refused(model, tmp_path, name):
    path = tmp_path / "bomb"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, bytes(10**7))
    assert "declares more weights than fit into a file of its size" in load(model, path)


class Planted:
    """A pickle that calls what it is made with."""

    def __init__(self, *reduction):
        self._reduction = reduction

    def __reduce__(self):
        return self._reduction


def test_not_even_numpy_makes_objects_out_of_what_lies_beside_the_weights(model, tmp_path, monkeypatch):
    """NumPy trusts the sizes, fields and flags of a pickled type, and reads memory by them."""
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(value) for name, value in read("fair_finetuned_small").items()}
    flags = (3, "|", None, ("a",), {"a": (np.dtype("f8"), 0)}, 1 << 40, 1, 63)
    kind = Planted(np.dtype, ("f8", False, True), flags)
    scalar = Planted(np.float64(0).__reduce__()[0], (kind, b"A" * 8))
    torch.save({"model": state, "best": scalar, "kind": kind}, tmp_path / "x.pt")
    made = []
    load_whole = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: made.append(load_whole(*args, **options)) or made[0])
    assert len(read_weights(tmp_path / "x.pt")) == len(state)
    assert type(made[0]["best"]) is type(made[0]["kind"]) is not np.float64


def test_containers_that_hold_each_other_many_times_or_themselves_are_read_once(tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(value) for name, value in read("fair_finetuned_small").items()}
    many = {"x": torch.ones(1)}
    for _ in range(40):
        many = {"a": many, "b": many}
    content = {"model": state, "many": many}
    content["self"] = [content]
    torch.save(content, tmp_path / "x.pt")
    assert len(read_weights(tmp_path / "x.pt")) == len(state)


def test_a_program_is_refused_for_what_it_is(model, tmp_path):
    torch = pytest.importorskip("torch")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "x.pt")
    assert "would have to run code, which is refused: it is a TorchScript program" in load(model, tmp_path / "x.pt")


def test_what_is_not_a_file_does_not_block(model, tmp_path):
    os.mkfifo(tmp_path / "x.pt")
    assert load(model, tmp_path / "x.pt") == " is not a file."


def test_a_few_numbers_do_not_make_a_huge_model(contents, tmp_path):
    path = tmp_path / "huge.safetensors"
    tensors = safetensors.numpy.load(contents[".safetensors"])
    tensors["stages.0.0.dwconv.weight"] = np.zeros((10**6, 1, 1, 1), "float32")
    path.write_bytes(safetensors.numpy.save(tensors))
    with pytest.raises(PretrainedError, match="is not a ConvNeXt: "):
        Architecture.of(read_weights(path), path)


# The whole tree: what could run code that lies in a file.

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "load_model", "model_from_json", "enable_unsafe_deserialization"}


def dangers(path):
    """Yields a line for what a file of ours does that could run code of a file that it reads."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (
                f"{path.name}:{node.lineno} {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES
            )
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            owner = getattr(getattr(node.func, "value", None), "id", "")
            arguments = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            unsafe = (owner, name) == ("torch", "load") and arguments.get("weights_only") is not True
            unsafe |= arguments.get("allow_pickle") is True or arguments.get("safe_mode") is False
            unsafe |= name in FORBIDDEN_CALLS - ({"load_model"} if "safe_mode" in arguments else set())
            if unsafe:
                yield f"{path.name}:{node.lineno} {name}"


def test_nothing_that_is_loaded_can_run_code():
    """`load_model` must say `safe_mode=True`; `torch.load` `weights_only=True`."""
    files = [
        path for package in ("convnext", "fcmae", "experiments", "launch") for path in (ROOT / package).rglob("*.py")
    ]
    assert len(files) > 100
    assert [line for path in files for line in dangers(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from yaml import load",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "keras.saving.load_model(path)",
        "keras.saving.load_model(path, safe_mode=False)",
        "eval(text)",
    ],
)
def test_a_planted_danger_is_found(tmp_path, line):
    (tmp_path / "a.py").write_text(line)
    assert list(dangers(tmp_path / "a.py"))
