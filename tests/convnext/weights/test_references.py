"""Files of the real libraries, for small models: outputs are equal, and writing gives the file back."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from convnext import ConvNeXtV1, ConvNeXtV2, create_from_weights, load_pretrained
from convnext.weights import read_weights, write_weights
from convnext.weights.loader import named_variables
from tests.comparison import assert_close
from tests.golden_weights import DATA

PORT = DATA / "port"
FILES = {
    "huggingface_v1": ("huggingface_v1/model.safetensors", ConvNeXtV1, "huggingface"),
    "huggingface_v2": ("huggingface_v2/model.safetensors", ConvNeXtV2, "huggingface"),
    "timm_v1": ("timm_v1.safetensors", ConvNeXtV1, "timm"),
    "timm_v2": ("timm_v2.safetensors", ConvNeXtV2, "timm"),
    "timm_v2_conv_mlp": ("timm_v2_conv_mlp.safetensors", ConvNeXtV2, "timm"),
}


@pytest.fixture(scope="module")
def outputs():
    with np.load(PORT / "outputs.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize("name", FILES)
def test_features_and_logits_equal_those_of_the_library(name, outputs):
    path, kind, _ = FILES[name]
    version = "v1" if kind is ConvNeXtV1 else "v2"
    model = create_from_weights(PORT / path, drop_path_rate=0.3)
    assert type(model) is kind and model.depths == (1, 1, 2, 1) and model.num_classes == 5
    images = outputs["images"].transpose(0, 2, 3, 1)
    for stage, feature_map in enumerate(model.extract_features(images)):
        assert_close(feature_map, outputs[f"{version}/f{stage}"].transpose(0, 2, 3, 1), 1e-5)
    assert_close(model(images), outputs[f"{name}/logits"], 1e-5)


@pytest.mark.parametrize("name", ["huggingface_v1", "huggingface_v2", "timm_v1", "timm_v2"])
def test_from_the_library_to_a_keras_file_and_back_gives_the_same_bits(name, tmp_path):
    path, _, library = FILES[name]
    create_from_weights(PORT / path).save(tmp_path / "model.keras")
    output = tmp_path / ("back" if library == "huggingface" else "back.safetensors")
    write_weights(read_weights(tmp_path / "model.keras"), output, library)
    written = safetensors.numpy.load_file(output / "model.safetensors" if library == "huggingface" else output)
    expected = safetensors.numpy.load_file(PORT / path)
    assert written.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(written[key], value, err_msg=key)


@pytest.mark.parametrize("version", [1, 2])
def test_the_configuration_for_transformers_agrees_with_its_own(version, tmp_path):
    write_weights(read_weights(PORT / f"huggingface_v{version}" / "model.safetensors"), tmp_path, "huggingface")
    ours = json.loads((tmp_path / "config.json").read_text())
    real = json.loads((PORT / f"huggingface_v{version}" / "config.json").read_text())
    assert len(ours["id2label"]) == len(real["id2label"])
    assert ours.pop("layer_norm_eps") == 1e-6  # theirs is another by default
    assert {key: real[key] for key in ours} == ours


def test_a_bare_model_of_transformers_has_the_same_weights_without_a_head(tmp_path):
    tensors = safetensors.numpy.load_file(PORT / "huggingface_v2" / "model.safetensors")
    bare = {key.removeprefix("convnextv2."): value for key, value in tensors.items() if "classifier" not in key}
    safetensors.numpy.save_file(bare, tmp_path / "bare.safetensors")
    whole = read_weights(PORT / "huggingface_v2" / "model.safetensors")
    weights = read_weights(tmp_path / "bare.safetensors")
    assert whole.keys() - weights.keys() == {"head/kernel", "head/bias"}
    model = ConvNeXtV2((1, 1, 2, 1), (4, 8, 12, 16), num_classes=5)
    report = load_pretrained(model, tmp_path / "bare.safetensors")
    assert set(report.missing) == {"head/kernel", "head/bias"}


def test_half_precision_is_read_as_float32(tmp_path):
    import ml_dtypes

    tensors = safetensors.numpy.load_file(PORT / "timm_v2.safetensors")
    for dtype in ("float16", ml_dtypes.bfloat16):
        halved = {key: value.astype(dtype) for key, value in tensors.items()}
        safetensors.numpy.save_file(halved, tmp_path / "half.safetensors")
        weights = read_weights(tmp_path / "half.safetensors")
        assert {value.dtype for value in weights.values()} == {np.dtype("float32")}
        np.testing.assert_array_equal(weights["head/bias"], halved["head.fc.bias"].astype("float32"))


def test_workdirs_with_odd_names_are_read(tmp_path):
    folder = tmp_path / "Läufe mit Leerzeichen"
    folder.mkdir()
    shutil.copy(PORT / "timm_v1.safetensors", folder / "gewichte.safetensors")
    model = create_from_weights(folder / "gewichte.safetensors", include_top=False)
    assert not any(name.startswith("head") for name in named_variables(model))
