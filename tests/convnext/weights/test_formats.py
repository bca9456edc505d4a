"""Files that are damaged or are something else: a clear error that names them, and the model as it was."""

import functools
import pickle
import re
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.numpy

from convnext import ConvNeXtV2, PretrainedError, create_from_weights, load_pretrained
from convnext.weights import read_weights, write_weights
from convnext.weights.loader import named_variables
from tests.golden_weights import DATA, read
from tests.small_models import parts_of, randomize, small_backbone, small_fcmae, variables_of

SIZE = {"depths": (1, 1, 2, 1), "dims": (4, 8, 12, 16), "num_classes": 5}
WEB_PAGE = b"<!DOCTYPE html>\n<html><body>404</body></html>"


def truncated(content):
    return content[: len(content) // 2]


def safetensors_file(path, change=lambda tensors: tensors):
    safetensors.numpy.save_file(change(read("fair_finetuned_small")), path)
    return path


def assert_refused(path, message):
    """Loading raises an error that names the file and has the message; the model keeps its bits."""
    model = ConvNeXtV2(**SIZE)
    before = {name: np.array(variable) for name, variable in named_variables(model).items()}
    with pytest.raises(PretrainedError, match=f"^{re.escape(str(path))}.*{message}"):
        load_pretrained(model, path)
    for name, variable in named_variables(model).items():
        np.testing.assert_array_equal(np.array(variable), before[name], err_msg=name)


def without(*keys):
    return lambda tensors: {key: value for key, value in tensors.items() if key not in keys}


def renamed(old, new):
    return lambda tensors: {new if key == old else key: value for key, value in tensors.items()}


def swapped(one, other):
    return lambda tensors: {**tensors, one: tensors[other], other: tensors[one]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("stages.1.0.norm.bias"), "stage_1/block_0/norm/beta: the model has .*, the file has no such variable"),
        (renamed("stages.2.1.grn.beta", "stages.2.7.grn.beta"), "stage_2/block_1/grn/beta: .*no such variable"),
        (renamed("stages.2.1.grn.beta", "stages.2.1.grn.delta"), "does not give a ConvNeXt: stages.2.1.grn.delta"),
        (swapped("stages.0.0.norm.weight", "stages.1.0.norm.weight"), r"stage_0/block_0/norm/gamma: .*\(4,\).*\(8,\)"),
        (swapped("head.weight", "stages.1.0.pwconv1.weight"), "stage_1/block_0/expansion/kernel: "),
        (lambda tensors: {"conv1.weight": np.zeros((3, 3))}, "not those of a ConvNeXt"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, change, message):
    assert_refused(safetensors_file(tmp_path / "x.safetensors", change), message)


@pytest.mark.parametrize("suffix", [".safetensors", ".keras", ".weights.h5"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", WEB_PAGE, b"\x80\x04K\x01."])
def test_something_else_under_the_name_of_weights_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    assert_refused(path, "is a web page .*<!DOCTYPE html>" if content is WEB_PAGE else "truncated")


def test_a_file_that_begins_like_a_web_page_is_read(tmp_path):
    """The first bytes of a safetensors file are the length of its header: 0x3C20 reads as " <"."""
    path, length = tmp_path / "x.safetensors", int.from_bytes(b" <", "little")
    safetensors_file(path)
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(length.to_bytes(8, "little") + content[8:end].ljust(length) + content[end:])
    assert read_weights(path).keys() == read_weights(safetensors_file(tmp_path / "y.safetensors")).keys()


@pytest.mark.parametrize("suffix", [".safetensors", ".keras", ".weights.h5"])
def test_a_file_that_cannot_be_opened_is_named_with_the_reason(tmp_path, suffix):
    (tmp_path / f"x{suffix}").mkdir()
    with pytest.raises(PretrainedError, match=f"x{suffix} is not a file"):
        read_weights(tmp_path / f"x{suffix}")


@pytest.mark.parametrize("suffix", [".safetensors", ".keras", ".weights.h5"])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    if suffix == ".safetensors":
        safetensors_file(path)
    else:
        model = ConvNeXtV2(**SIZE)
        model.save(path) if suffix == ".keras" else model.save_weights(path)
    path.write_bytes(truncated(path.read_bytes()))
    assert_refused(path, "truncated")


def test_a_keras_file_with_a_flipped_byte_is_refused(tmp_path):
    path = tmp_path / "x.keras"
    ConvNeXtV2(**SIZE).save(path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("model.weights.h5")
    content[info.header_offset + 200 + info.file_size // 2] ^= 1
    path.write_bytes(content)
    assert_refused(path, "is damaged, or it is truncated: the checksum of model.weights.h5 in it is wrong")


def test_a_keras_file_of_another_model_is_refused(tmp_path):
    import keras

    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "x.keras")
    assert_refused(tmp_path / "x.keras", "stem/conv/kernel: the model has .*, the file has no such variable")


def test_a_keras_file_is_read_without_making_what_is_in_it(tmp_path):
    """A configuration that would run code is never looked at."""
    path, hostile = tmp_path / "x.keras", tmp_path / "hostile.keras"
    model = ConvNeXtV2(**SIZE)
    model.save(path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(hostile, "w") as target:
        target.writestr("config.json", '{"class_name": "Lambda", "module": "keras.layers", "config": {}}')
        target.writestr("model.weights.h5", source.read("model.weights.h5"))
    assert len(load_pretrained(ConvNeXtV2(**SIZE), hostile).loaded) == len(named_variables(model))


def test_the_state_of_the_optimizer_is_left_aside(tmp_path):
    model = small_backbone(include_top=True, num_classes=3, drop_path_rate=0.2)
    values = randomize(variables_of(model))
    model.compile("adamw", "mse", run_eagerly=True)
    model.fit(np.zeros((2, 32, 48, 3), "float32"), np.zeros((2, 3)), verbose=0)
    values = {name: np.array(variable) for name, variable in variables_of(model).items()}
    for name in ("x.keras", "x.weights.h5"):
        model.save(tmp_path / name) if name == "x.keras" else model.save_weights(tmp_path / name)
        weights = read_weights(tmp_path / name)
        assert weights.keys() == values.keys()
        for key, value in values.items():
            np.testing.assert_array_equal(weights[key], value, err_msg=key)


def test_the_weights_of_an_autoencoder_are_read_with_the_decoder(tmp_path):
    model = small_fcmae(decoder_depth=2)
    values = randomize(parts_of(model))
    model.save_weights(tmp_path / "x.weights.h5")
    weights = read_weights(tmp_path / "x.weights.h5")
    assert weights.keys() == values.keys()
    for key, value in values.items():
        np.testing.assert_array_equal(weights[key], value, err_msg=key)


def test_an_extra_array_in_an_h5_file_is_refused(tmp_path):
    path = tmp_path / "x.weights.h5"
    ConvNeXtV2(**SIZE).save_weights(path)
    with h5py.File(path, "a") as file:
        file["layers/stem/conv/vars/2"] = np.zeros(3)
    assert_refused(path, "layers/stem/conv/vars/2 is no weight of a ConvNeXt")


def test_a_checkpoint_with_missing_stages_has_no_architecture(tmp_path):
    path = safetensors_file(tmp_path / "x.safetensors", without("stages.0.0.dwconv.weight"))
    with pytest.raises(
        PretrainedError, match="x.safetensors does not have all weights of a ConvNeXt: it lacks 'stage_0/blo"
    ):
        create_from_weights(path)


def test_an_unknown_suffix_is_refused_with_those_that_are_known(tmp_path):
    (tmp_path / "x.dat").write_bytes(b"x")
    assert_refused(tmp_path / "x.dat", "should be a Keras, safetensors or PyTorch file")


def test_nothing_is_left_behind_where_writing_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors.numpy, "save_file", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_weights(read_weights(DATA / "port" / "timm_v1.safetensors"), tmp_path / "x.safetensors", "timm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_model_of_pure_bfloat16_is_read(tmp_path, suffix):
    model = ConvNeXtV2(**SIZE, dtype="bfloat16")
    path = tmp_path / f"x{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    weights = read_weights(path)
    for name, variable in named_variables(model).items():
        np.testing.assert_array_equal(weights[name], np.array(variable).astype("float32"), err_msg=name)


def test_a_weight_at_the_top_of_an_h5_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file["vars/0"] = np.zeros(3)
    assert_refused(tmp_path / "x.weights.h5", "vars/0 is no weight of a ConvNeXt")


def test_one_part_of_several_is_refused(tmp_path):
    assert_refused(safetensors_file(tmp_path / "model-00001-of-00002.safetensors"), "is one part of several")


def test_a_folder_of_transformers_is_a_source_and_others_are_named(tmp_path):
    model = ConvNeXtV2(**SIZE)
    assert len(load_pretrained(model, DATA / "port" / "huggingface_v2").loaded) == len(named_variables(model))
    assert_refused(tmp_path, "has no encoder.keras, so no run has finished there, and no model.safetensors")
    with pytest.raises(PretrainedError, match="is empty"):
        load_pretrained(model, "")


# PyTorch's own files, where PyTorch is installed.


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def checkpoint(torch, name="fair_finetuned_small"):
    return {key: torch.from_numpy(value) for key, value in read(name).items()}


@pytest.mark.parametrize(
    ("wrap", "key"),
    [
        (lambda state, other: {"model": state, "model_ema": other, "epoch": 3}, "model"),
        (lambda state, other: {"model": other, "model_ema": state}, "model_ema"),
        (lambda state, other: {"model_ema": state}, None),
        (lambda state, other: {"state_dict": state}, None),
        (lambda state, other: state, None),
    ],
)
def test_the_weights_are_found_where_training_scripts_put_them(tmp_path, torch, wrap, key):
    state = checkpoint(torch)
    torch.save(wrap(state, {name: value + 1 for name, value in state.items()}), tmp_path / "x.pth")
    weights = read_weights(tmp_path / "x.pth", key)
    np.testing.assert_array_equal(weights["head/bias"], state["head.bias"].numpy())


@pytest.mark.parametrize("name", ["fair_finetuned_small", "fair_fcmae_small"])
def test_a_pytorch_file_is_written_as_the_authors_scripts_read_it(tmp_path, torch, name):
    expected = checkpoint(torch, name)
    torch.save({"model": expected}, tmp_path / "in.pt")
    write_weights(read_weights(tmp_path / "in.pt"), tmp_path / "out.pt", "fair")
    written = torch.load(tmp_path / "out.pt", weights_only=True)["model"]
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], value) for key, value in expected.items())


def test_a_pickle_that_would_run_code_is_refused(tmp_path, torch):
    torch.save({"model": checkpoint(torch), "args": functools.partial(print, 1)}, tmp_path / "x.pt")
    assert_refused(tmp_path / "x.pt", "which is refused: it names functools.partial. Load it where you trust it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty, or truncated: download it again"),
        (b"not weights", "not a PyTorch file, it is damaged or truncated"),
        (b'{"error": 404}', "not a PyTorch file, it is damaged or truncated"),
        (pickle.dumps(print, protocol=4), "not a PyTorch file, it is damaged|which is refused"),
        (WEB_PAGE, "is a web page"),
        (b"\xef\xbb\xbf" + WEB_PAGE, "is a web page"),
        (None, "truncated"),
    ],
)
def test_what_is_no_pytorch_file_is_refused(tmp_path, torch, content, message):
    path = tmp_path / "x.pt"
    torch.save({"model": checkpoint(torch)}, path)
    path.write_bytes(truncated(path.read_bytes()) if content is None else content)
    assert_refused(path, message)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (3.0, "holds a float, not a state_dict"),
        ({"model": {"a": 1}}, "not those of a ConvNeXt .*: it has no tensors of floating-point numbers"),
    ],
)
def test_a_pytorch_file_of_other_things_is_refused(tmp_path, torch, saved, message):
    torch.save(saved, tmp_path / "x.pt")
    assert_refused(tmp_path / "x.pt", message)


def test_an_entry_that_is_not_there_is_named(tmp_path, torch):
    torch.save({"model": checkpoint(torch)}, tmp_path / "x.pt")
    with pytest.raises(PretrainedError, match="has no ConvNeXt in an entry 'model_ema'; its entries are model"):
        read_weights(tmp_path / "x.pt", "model_ema")


def test_a_flipped_byte_in_a_pytorch_file_is_found(tmp_path, torch):
    path = tmp_path / "x.pt"
    torch.save({"model": checkpoint(torch)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert_refused(path, "is damaged")


def test_tensors_without_values_in_memory_are_refused_among_the_weights_and_left_beside_them(tmp_path, torch):
    state = checkpoint(torch)
    view, meta, sparse = torch.ones(1).expand(10**12), torch.ones(2, device="meta"), torch.eye(2).to_sparse()
    for odd in (view, meta, sparse):
        torch.save({"model": {**state, "other": odd, "stages.0.0.norm.bias": odd}}, tmp_path / "x.pt")
        assert_refused(tmp_path / "x.pt", ": stages.0.0.norm.bias is not an array in memory")
        torch.save({"model": {**state, "other": odd}}, tmp_path / "x.pt")
        assert len(read_weights(tmp_path / "x.pt")) == len(state)


def test_an_entry_that_holds_no_tensors_cannot_be_chosen(tmp_path, torch):
    state = checkpoint(torch)
    torch.save({"model": state, "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(PretrainedError, match="has no ConvNeXt in an entry 'epoch'"):
        read_weights(tmp_path / "x.pt", "epoch")
