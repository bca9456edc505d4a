"""Conversion of weights from and to other libraries."""

import keras
import numpy as np
import pytest
import safetensors.numpy

from convnext import ConvNeXtV1, create_from_weights
from convnext.segmentation import Segmenter
from convnext.weights import read_weights
from convnext.weights.loader import named_variables
from experiments import convert
from experiments.errors import UserError
from fcmae import FCMAE
from tests.comparison import assert_close
from tests.golden_weights import DATA, read
from tests.launch.commands import run_forked
from tests.small_models import small_backbone


class Lines(list):
    def __call__(self, line):
        self.append(line)


@pytest.fixture
def fcmae(tmp_path):
    path = tmp_path / "authors.safetensors"
    safetensors.numpy.save_file(read("fair_fcmae_small"), path)
    return path


def assert_same_arrays(path, expected):
    written = safetensors.numpy.load_file(path)
    assert written.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(written[key], value, err_msg=key)


def test_of_a_segmentation_model_the_encoder_is_converted(tmp_path):
    segmenter, lines = Segmenter(small_backbone(), 3, "fpn", decoder_dim=4), Lines()
    segmenter.save(tmp_path / "segmenter.keras")
    convert.run(tmp_path / "segmenter.keras", tmp_path / "encoder.keras", log=lines)
    assert ": an encoder, " in lines[0] and lines[1].startswith("left out: classifier/vars/0, ")
    expected = named_variables(segmenter.backbone)
    for name, variable in named_variables(keras.saving.load_model(tmp_path / "encoder.keras")).items():
        np.testing.assert_array_equal(variable, expected[name])


def test_the_authors_autoencoder_becomes_ours_with_their_outputs(fcmae, tmp_path):
    lines = Lines()
    convert.run(fcmae, tmp_path / "fcmae.keras", image_size=128, log=lines)
    model = keras.saving.load_model(tmp_path / "fcmae.keras")
    golden = read("golden")
    assert type(model) is FCMAE
    assert_close(model.predict_patches(golden["img"], 1.0 - golden["mask"]), golden["pred"], 1e-4)
    assert lines == [
        f"{fcmae}: ConvNeXt V2, depths 1-1-2-1, channels 4-8-12-16: an encoder with a decoder, 38,764 parameters",
        f"{tmp_path / 'fcmae.keras'}: 81 arrays, verified by reading them back",
    ]


def test_to_keras_and_back_to_the_authors_gives_the_same_bits(fcmae, tmp_path):
    convert.run(fcmae, tmp_path / "fcmae.keras", image_size=64)
    convert.run(tmp_path / "fcmae.keras", tmp_path / "back.safetensors", to="fair")
    assert_same_arrays(tmp_path / "back.safetensors", read("fair_fcmae_small"))
    convert.run(tmp_path / "back.safetensors", tmp_path / "again.weights.h5", image_size=64)
    weights = [read_weights(tmp_path / name) for name in ("fcmae.keras", "again.weights.h5")]
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_authors_classifier_becomes_ours_with_their_outputs_and_goes_back(tmp_path):
    safetensors.numpy.save_file(read("fair_finetuned_small"), tmp_path / "authors.safetensors")
    convert.run(tmp_path / "authors.safetensors", tmp_path / "classifier.keras")
    golden = read("golden")
    assert_close(keras.saving.load_model(tmp_path / "classifier.keras")(golden["x"]), golden["logits"], 1e-4)
    convert.run(tmp_path / "classifier.keras", tmp_path / "back.safetensors", to="fair")
    assert_same_arrays(tmp_path / "back.safetensors", read("fair_finetuned_small"))


def test_the_encoder_alone_of_an_autoencoder_and_of_a_classifier(fcmae, tmp_path):
    convert.run(fcmae, tmp_path / "encoder.keras", part="encoder")
    golden = read("golden")
    model = create_from_weights(tmp_path / "encoder.keras")
    assert not model.include_top
    convert.run(DATA / "port" / "timm_v1.safetensors", tmp_path / "v1.keras", part="encoder")
    encoder = keras.saving.load_model(tmp_path / "v1.keras")
    assert type(encoder) is ConvNeXtV1 and not encoder.include_top
    assert model(golden["img"]).shape == (2, 4, 4, 16)


def test_a_decoder_without_a_place_is_left_out_and_said(fcmae, tmp_path):
    lines = Lines()
    convert.run(fcmae, tmp_path / "encoder.safetensors", to="timm", log=lines)
    assert lines[0] == "timm has no place for the decoder: its 15 arrays are left out"
    assert not any("decoder" in name for name in read_weights(tmp_path / "encoder.safetensors"))


@pytest.mark.parametrize("to", ["keras", "timm", "huggingface", "fair"])
def test_a_bare_model_with_its_last_normalization_is_converted(tmp_path, to):
    tensors = safetensors.numpy.load_file(DATA / "port" / "huggingface_v2" / "model.safetensors")
    bare = {key: value for key, value in tensors.items() if "classifier" not in key}
    bare["convnextv2.layernorm.bias"][0] = np.nan  # a value that equals nothing, itself included
    safetensors.numpy.save_file(bare, tmp_path / "bare.safetensors")
    output = tmp_path / {"keras": "x.keras", "huggingface": "folder"}.get(to, "x.safetensors")
    lines = Lines()
    convert.run(tmp_path / "bare.safetensors", output, to=to, log=lines)
    weights = read_weights(output / "model.safetensors" if to == "huggingface" else output)
    assert ("head_norm/gamma" in weights) == (to != "keras")
    assert any("the normalization before it is left out" in line for line in lines) == (to == "keras")


def test_a_workdir_is_converted(tmp_path):
    small_backbone(depths=(1, 1, 1, 1), dims=(4, 6, 8, 10), input_shape=(32, 32, 3)).save(tmp_path / "encoder.keras")
    convert.run(tmp_path, tmp_path / "out", to="huggingface")
    assert (tmp_path / "out" / "config.json").is_file()
    assert_weights_equal(tmp_path / "encoder.keras", tmp_path / "out" / "model.safetensors")


def assert_weights_equal(one, other):
    one, other = read_weights(one), read_weights(other)
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output": "x.bin"}, "x.bin: name a .keras or .weights.h5 file, or a library with --to"),
        ({"output": "x.keras", "to": "timm"}, "x.keras: name a folder or a .safetensors, .pt or .pth file for timm"),
        ({"output": "x.safetensors", "to": "huggingface"}, "x.safetensors: name a folder for huggingface"),
        ({"output": "x.keras", "key": "model_ema"}, "authors.safetensors: it has no ConvNeXt in an entry 'model_ema'"),
        ({"output": "x.keras", "image_size": (96, 100)}, "--image_size=96x100: .*nearest .* are 96x96 and 96x128"),
        (
            {"output": "x.keras", "image_size": 100},
            "--image_size=100x100: .*nearest sizes that do are 96x96 and",
        ),
    ],
)
def test_mistakes_are_errors_that_say_what_to_do(fcmae, tmp_path, arguments, message):
    output = tmp_path / arguments.pop("output")
    with pytest.raises(UserError, match=message):
        convert.run(fcmae, output, **arguments)
    assert not output.exists()


def test_a_place_that_cannot_be_written_to_is_named(fcmae, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(UserError, match="file/x.safetensors cannot be written: "):
        convert.run(fcmae, tmp_path / "file" / "x.safetensors", to="fair")
    with pytest.raises(UserError, match="folder.keras is a folder: name a file"):
        convert.run(fcmae, tmp_path / "folder.keras")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["authors.safetensors", "file", "folder.keras"]


def test_a_kernel_that_transformers_does_not_have_is_an_error(tmp_path):
    small_backbone(kernel_size=5).save(tmp_path / "encoder.keras")
    with pytest.raises(UserError, match="Transformers supports only kernel_size=7, got 5"):
        convert.run(tmp_path / "encoder.keras", tmp_path / "out", to="huggingface")


def test_the_command_converts_and_answers_mistakes_in_one_line(fcmae, tmp_path):
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html><html></html>")
    outcomes = run_forked(
        {
            "good": ("convert", [f"--source={fcmae}", f"--output={tmp_path}/encoder.safetensors", "--to=timm"]),
            "no source": ("convert", ["--output=x.keras"]),
            "no output": ("convert", [f"--source={fcmae}"]),
            "missing": ("convert", [f"--source={tmp_path}/nothing.pt", "--output=x.keras"]),
            "page": ("convert", [f"--source={tmp_path}/page.safetensors", "--output=x.keras"]),
            "unknown library": ("convert", [f"--source={fcmae}", "--output=x", "--to=caffe"]),
        }
    )
    assert outcomes["good"].code == 0 and outcomes["good"].lines[-1].endswith("verified by reading them back")
    expected = {
        "no source": "error: --source is missing",
        "no output": "error: --output is missing",
        "missing": f"error: There is no {tmp_path}/nothing.pt: pretrained weights are a run's workdir, or a Keras,",
        "page": f"error: {tmp_path}/page.safetensors is a web page (<!DOCTYPE html><html></html>), not weights",
        "unknown library": "error: flag --to=caffe",
    }
    for name, line in expected.items():
        assert outcomes[name].code == 2, name
        assert outcomes[name].errors.startswith(line), outcomes[name].errors
        assert len(outcomes[name].errors.splitlines()) == 1, name
