"""Weights as people have them: every wrapping, head and form of a library, against the features of the real models."""

import argparse
import json
import pathlib

import numpy as np
import pytest

from convnext import ConvNeXtV2, PretrainedError, create_from_weights, load_pretrained
from convnext.weights import ImageSettings, read_checkpoint, read_weights, write_weights
from tests.comparison import assert_close, to_numpy
from tests.golden_weights import read
from tests.small_models import randomize
from tests.torch_weights import draw
from tests.torchvision_import import import_without_extension

import_without_extension()
torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

SIZES = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
TOLERANCE = 1e-4
TIGHT = 1e-5  # in 5 blocks of float32; tanh for erf changes more
IMAGE_SIZES = [(64, 96), (96, 64)]


def timm_model(**arguments):
    version_2 = {"use_grn": True, "ls_init_value": None}
    return draw(timm.models.ConvNeXt(**{**SIZES, **version_2, "num_classes": 5, **arguments}))


def timm_features(model, images):
    """The feature map of each stage."""
    maps, x = [], model.stem(images)
    for stage in model.stages:
        x = stage(x)
        maps.append(x)
    return maps


def assert_same_features(ours, features_of, model, tolerance=TOLERANCE):
    for height, width in IMAGE_SIZES:
        images = np.random.default_rng(0).normal(size=(2, 3, height, width)).astype("float32")
        with torch.no_grad():
            expected = features_of(model, torch.from_numpy(images))
        actual = ours.extract_features(images.transpose(0, 2, 3, 1))
        for one, other in zip(actual, expected, strict=True):
            assert_close(to_numpy(one).transpose(0, 3, 1, 2), other.numpy(), tolerance)


@pytest.fixture(scope="module")
def plain():
    return timm_model()


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "backbone.",
    "encoder.",
    "model.",
    "module.visual.trunk.",
    "net._orig_mod.a.b.",
]
WRAPPINGS = {
    "bare": lambda state: state,
    "model": lambda state: {"model": state, "epoch": 3},
    "model_state_dict": lambda state: {
        "model_state_dict": state,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
    },
    "module": lambda state: {"module": state},
    "teacher": lambda state: {"teacher": state, "student": {"fc.weight": torch.ones(2, 2)}},
    "nested": lambda state: {"checkpoint": {"student": state}, "hyper_parameters": {"lr": 0.1}},
    "arguments": lambda state: {"state_dict": state, "args": argparse.Namespace(lr=1.0, name="x"), "epoch": 3},
    "numbers": lambda state: {
        "model": state,
        "best_acc": np.float64(0.5),
        "epochs": np.int64(3),
        "half": np.float16(1),
        "kind": np.dtype("float32"),
    },
    "plain data": lambda state: {
        "model": state,
        "texts": [np.str_("a"), np.bytes_(b"a"), np.datetime64("2020-01-01")],
        "others": (np.bool_(True), np.complex64(1), np.longdouble(1), np.array(["a"]), np.arange(3)),
        "args": argparse.Namespace(output=pathlib.Path("runs"), seed=np.int64(1)),
    },
    "list": lambda state: {"models": [{"lr": 0.1}, ({"params": state},)]},
    "twice": lambda state: {"state_dict": state, "model": state},
}
NAMES = ["x.pt", "x.pth", "x.ckpt", "pytorch_model.bin", "checkpoint.pth.tar", "weights", "x.safetensors"]


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_wrapping_is_seen_through(tmp_path, plain, wrapping, prefix):
    state = plain.state_dict()
    torch.save(WRAPPINGS[wrapping](prefixed(prefix, state)), tmp_path / "x.pth")
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert checkpoint.prefix == prefix and not checkpoint.left_out
    np.testing.assert_array_equal(checkpoint.weights["head/bias"], state["head.fc.bias"].numpy())
    assert len(checkpoint.weights) == len(state)


@pytest.mark.parametrize("name", NAMES)
def test_the_content_decides_not_the_name(tmp_path, plain, name):
    torch.save({"state_dict": prefixed("backbone.", plain.state_dict())}, tmp_path / name)
    assert_same_features(create_from_weights(tmp_path / name), timm_features, plain)
    safetensors_torch.save_file(prefixed("module.", plain.state_dict()), tmp_path / name)
    assert len(read_weights(tmp_path / name)) == len(plain.state_dict())
    ours = ConvNeXtV2(**SIZES, num_classes=3, input_shape=(64, 64, 3))
    ours.save(tmp_path / "y.keras")
    (tmp_path / "y.keras").rename(tmp_path / name)
    assert len(read_weights(tmp_path / name)) == len(ours.weights)


def test_the_report_names_the_prefix_and_what_is_left_out(tmp_path, plain):
    state = {
        **prefixed("visual.trunk.", plain.state_dict()),
        "logit_scale": torch.ones(()),
        "text.proj": torch.ones(2, 2),
    }
    torch.save(state, tmp_path / "x.pt")
    model = ConvNeXtV2(**SIZES, num_classes=5, input_shape=(64, 64, 3))
    report = load_pretrained(model, tmp_path / "x.pt")
    assert report.prefix == "visual.trunk." and report.left_out == ("logit_scale", "text.proj") and not report.missing
    assert "the prefix 'visual.trunk.' of the names removed" in str(report) and "text.proj" in str(report)


def test_several_that_fit_are_listed_and_one_is_chosen_by_its_name(tmp_path, plain):
    other = {name: value + 1 for name, value in plain.state_dict().items()}
    torch.save({"model": plain.state_dict(), "model_ema": other}, tmp_path / "x.pt")
    with pytest.raises(
        PretrainedError, match="holds 2 ConvNeXts: model, model_ema. Choose one by its name, with --key"
    ):
        read_weights(tmp_path / "x.pt")
    np.testing.assert_array_equal(
        read_weights(tmp_path / "x.pt", "model_ema")["head/bias"], other["head.fc.bias"].numpy()
    )
    both = {**prefixed("teacher.backbone.", other), **prefixed("student.backbone.", plain.state_dict())}
    torch.save({"state_dict": both}, tmp_path / "y.pt")
    with pytest.raises(PretrainedError, match="state_dict.teacher.backbone, state_dict.student.backbone"):
        read_weights(tmp_path / "y.pt")
    weights = read_weights(tmp_path / "y.pt", "state_dict.student")
    np.testing.assert_array_equal(weights["stem/conv/bias"], plain.state_dict()["stem.0.bias"].numpy())


HEADS = {
    "norm_pre": ({"head_norm_first": True}, ("norm_pre.weight", "norm_pre.bias", "head.fc.weight", "head.fc.bias")),
    "pre_logits": ({"head_hidden_size": 20}, ("head.norm.weight", "head.pre_logits.fc.bias", "head.fc.weight")),
    "norm alone": ({"num_classes": 0}, ()),
}


@pytest.mark.parametrize("head", HEADS)
def test_the_encoder_loads_whatever_the_head_is(tmp_path, head):
    arguments, left_out = HEADS[head]
    model = timm_model(**arguments)
    safetensors_torch.save_file(model.state_dict(), tmp_path / "x.safetensors")
    assert set(left_out) <= set(read_checkpoint(tmp_path / "x.safetensors").left_out)
    assert_same_features(create_from_weights(tmp_path / "x.safetensors", include_top=False), timm_features, model)


def test_features_only_of_timm(tmp_path):
    model = draw(timm.create_model("convnextv2_atto", features_only=True))
    torch.save(model.state_dict(), tmp_path / "x.pth")
    assert_same_features(create_from_weights(tmp_path / "x.pth"), lambda model, images: model(images), model)


def test_a_head_of_another_width_does_not_block_the_encoder(tmp_path, plain):
    state = {name: value for name, value in plain.state_dict().items() if not name.startswith("head.")}
    wide = {"head.norm.weight": torch.ones(64), "head.norm.bias": torch.ones(64), "head.fc.weight": torch.ones(3, 64)}
    torch.save({**prefixed("backbone.", state), **wide, "head.fc.bias": torch.ones(3)}, tmp_path / "x.pt")
    model = ConvNeXtV2(**SIZES, num_classes=3, input_shape=(64, 96, 3))
    report = load_pretrained(model, tmp_path / "x.pt")
    assert set(wide) < set(report.left_out) and "head/kernel" in report.missing
    assert_same_features(create_from_weights(tmp_path / "x.pt"), timm_features, plain)


def test_numbers_that_are_not_floating_point_are_no_weights(tmp_path, plain):
    state = {
        **plain.state_dict(),
        "steps": torch.ones(3, dtype=torch.int64),
        "scale": torch.ones(3).to(torch.float8_e5m2),
    }
    safetensors_torch.save_file(state, tmp_path / "x.safetensors")
    assert len(read_weights(tmp_path / "x.safetensors")) == len(plain.state_dict())
    quantized = {name: value.to(torch.int8) for name, value in plain.state_dict().items()}
    safetensors_torch.save_file(quantized, tmp_path / "x.safetensors")
    with pytest.raises(PretrainedError, match="it has no tensors of floating-point numbers"):
        read_weights(tmp_path / "x.safetensors")


def hidden_states(model, images):
    return model(images, output_hidden_states=True).hidden_states[1:]


@pytest.mark.parametrize("version", ["ConvNext", "ConvNextV2"])
def test_the_backbones_of_transformers(tmp_path, version):
    config = getattr(transformers, f"{version}Config")(
        depths=list(SIZES["depths"]), hidden_sizes=list(SIZES["dims"]), out_features=["stage2", "stage4"]
    )
    model = draw(getattr(transformers, f"{version}Backbone")(config))
    model.save_pretrained(tmp_path)
    assert "hidden_states_norms.stage2.weight" in read_checkpoint(tmp_path / "model.safetensors").left_out
    assert_same_features(create_from_weights(tmp_path), hidden_states, model)


def dinov3_features(model, images):
    return model(images, output_hidden_states=True).hidden_states[1:]


@pytest.mark.parametrize("variant", ["own", "tiny"])
def test_dinov3_of_transformers(tmp_path, variant):
    sizes = SIZES if variant == "own" else {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)}
    config = transformers.DINOv3ConvNextConfig(depths=list(sizes["depths"]), hidden_sizes=list(sizes["dims"]))
    model = draw(transformers.DINOv3ConvNextModel(config))
    model.save_pretrained(tmp_path)
    ours = create_from_weights(tmp_path)
    assert ours.dims == sizes["dims"]
    assert_same_features(ours, dinov3_features, model)


def test_the_authors_autoencoder_in_dense_names_is_read_with_its_decoder(tmp_path):
    """Their script for fine-tuning removes `encoder.`, `ln`, `linear` and gives all of GRN two more axes."""
    sparse, dense = read("fair_fcmae_small"), {}
    for name, value in sparse.items():
        parts = [part for part in name.removeprefix("encoder.").split(".") if part not in ("ln", "linear")]
        if parts[-1] == "kernel":
            parts[-1] = "weight"
            side = round(len(value) ** 0.5)
            grid = value.reshape(side, side, *value.shape[1:])  # columns, rows, ...: the row runs fastest
            value = grid.transpose(3, 2, 1, 0) if value.ndim == 3 else grid.transpose(2, 1, 0)[:, None]
        elif "grn" in parts:
            value = value[None, None]
        elif parts[-1] == "bias":
            value = value.reshape(-1)
        dense[".".join(parts)] = torch.from_numpy(np.ascontiguousarray(value))
    torch.save({"model": dense}, tmp_path / "dense.pt")
    torch.save({"model": {name: torch.from_numpy(value) for name, value in sparse.items()}}, tmp_path / "sparse.pt")
    expected, actual = read_weights(tmp_path / "sparse.pt"), read_weights(tmp_path / "dense.pt")
    assert actual.keys() == expected.keys() and "decoder/mask_token" in actual
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


OPTIONS = {
    "tanh": ({"act_layer": "gelu_tanh"}, {"activation": "gelu_tanh"}),
    "epsilon": ({"norm_eps": 1e-3}, {"epsilon": 1e-3}),
    "output_stride 16": ({"output_stride": 16}, {"output_stride": 16}),
    "output_stride 8": ({"output_stride": 8}, {"output_stride": 8}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_weights_do_not_show_is_an_argument_or_read_beside_them(tmp_path, name):
    theirs, ours = OPTIONS[name]
    model = timm_model(**theirs)
    safetensors_torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert_same_features(create_from_weights(tmp_path, **ours), timm_features, model, TIGHT)
    with pytest.raises(AssertionError):  # it matters
        assert_same_features(create_from_weights(tmp_path), timm_features, model, TIGHT)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "convnextv2_own", "model_args": theirs}))
    assert_same_features(created := create_from_weights(tmp_path), timm_features, model)
    created.save(tmp_path / "saved.keras")
    assert_same_features(create_from_weights(tmp_path / "saved.keras"), timm_features, model)
    with pytest.raises(PretrainedError, match=f"make it with {next(iter(ours))}="):
        load_pretrained(ConvNeXtV2(**SIZES, input_shape=(64, 64, 3)), tmp_path)


@pytest.mark.parametrize("name", ["test_convnext", "test_convnext2"])
@pytest.mark.parametrize("library", ["timm", "OpenCLIP"])
def test_what_a_model_of_timm_has_by_its_name_is_read_beside_the_weights(tmp_path, name, library):
    model = draw(timm.create_model(name))
    if library == "timm":
        timm.models.save_for_hf(model, tmp_path)
    else:
        torch.save(prefixed("visual.trunk.", model.state_dict()), tmp_path / "open_clip_pytorch_model.bin")
        config = {"model_cfg": {"embed_dim": 64, "vision_cfg": {"timm_model_name": name}}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert_same_features(ours := create_from_weights(tmp_path), timm_features, model, TIGHT)
    assert (ours.epsilon, ours.activation) == (1e-5, "gelu_tanh")


def test_the_names_that_stand_for_other_arguments_are_those_of_timm():
    from convnext.weights.architecture import TIMM_ARGUMENTS

    refused = ("rms", "_ol", "test_convnext3")  # for their weights
    for name in [name for name in timm.list_models("*convnext*") if not any(part in name for part in refused)]:
        with torch.device("meta"):
            model = timm.create_model(name)
        found = {"norm_eps": model.stages[0].blocks[0].norm.eps, "act_layer": type(model.stages[0].blocks[0].mlp.act)}
        expected = {"norm_eps": 1e-6, "act_layer": "gelu", **TIMM_ARGUMENTS.get(name, {})}
        assert found["norm_eps"] == expected["norm_eps"], name
        assert (found["act_layer"].__name__ == "GELUTanh") == (expected["act_layer"] == "gelu_tanh"), name


def test_a_model_in_several_files_is_read_by_their_index(tmp_path):
    config = transformers.ConvNextV2Config(depths=list(SIZES["depths"]), hidden_sizes=list(SIZES["dims"]))
    model = draw(transformers.ConvNextV2Model(config))
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(parts := sorted(tmp_path.glob("*.safetensors"))) > 2
    assert_same_features(create_from_weights(tmp_path), hidden_states, model)
    with pytest.raises(PretrainedError, match="is one part of several: name the folder"):
        read_weights(parts[0])
    parts[1].unlink()
    with pytest.raises(PretrainedError, match=f"{parts[1].name} is not a safetensors file|No such file"):
        create_from_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')
    with pytest.raises(PretrainedError, match="is no index of safetensors files: Invalid name"):
        create_from_weights(tmp_path)


def test_a_head_with_another_epsilon_than_ours_is_left_out(tmp_path):
    for epsilon, is_read in ((1e-12, True), (1e-3, False)):
        config = transformers.ConvNextV2Config(
            depths=list(SIZES["depths"]), hidden_sizes=list(SIZES["dims"]), layer_norm_eps=epsilon, num_labels=5
        )
        model = draw(transformers.ConvNextV2ForImageClassification(config))
        model.save_pretrained(tmp_path)
        checkpoint, ours = read_checkpoint(tmp_path / "model.safetensors"), create_from_weights(tmp_path)
        assert ours.include_top == is_read and ("head/kernel" in checkpoint.left_out) != is_read
        assert_same_features(ours, hidden_states, model)


def test_the_activation_of_transformers_is_read_beside_the_weights(tmp_path):
    config = transformers.ConvNextV2Config(
        depths=list(SIZES["depths"]), hidden_sizes=list(SIZES["dims"]), hidden_act="gelu_pytorch_tanh"
    )
    model = draw(transformers.ConvNextV2ForImageClassification(config))
    model.save_pretrained(tmp_path)
    assert_same_features(create_from_weights(tmp_path), hidden_states, model)


OTHERS = {
    "no bias in the normalization": lambda: timm.create_model("convnext_zepto_rms", pretrained=False),
    "overlapping stem": lambda: timm.create_model("convnext_atto_ols", pretrained=False),
    "ResNet": lambda: timm.create_model("resnet18", pretrained=False),
    "ViT": lambda: timm.create_model("vit_tiny_patch16_224", pretrained=False),
    "another size": lambda: timm.create_model("convnextv2_atto", pretrained=False),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_other_architectures_are_refused_and_the_model_stays(tmp_path, kind, prefix):
    torch.save({"model": prefixed(prefix, OTHERS[kind]().state_dict())}, tmp_path / "x.pt")
    model = ConvNeXtV2(**SIZES, num_classes=5, input_shape=(64, 64, 3))
    before = [np.array(variable) for variable in model.weights]
    with pytest.raises(PretrainedError):
        load_pretrained(model, tmp_path / "x.pt")
    for one, other in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(one, np.array(other))


def test_a_folder_of_a_grey_model_of_own_sizes_says_how_its_images_are_prepared(tmp_path):
    sizes = {"depths": (1, 2, 1), "dims": (8, 12, 16), "stem_stride": 2, "activation": "gelu_tanh"}
    ours = ConvNeXtV2(**sizes, num_classes=3, input_shape=(32, 32, 1))
    randomize({variable.path: variable for variable in ours.weights})
    ours.save(tmp_path / "ours.keras")
    checkpoint = read_checkpoint(tmp_path / "ours.keras")
    settings = ImageSettings((32, 32), (0.3,), (0.2,), 1.0, ("cat", "dog", "owl"))
    folder = tmp_path / "folder"
    write_weights(checkpoint.weights, folder, "huggingface", settings, checkpoint.options)
    images = np.random.default_rng(0).normal(size=(2, 1, 32, 32)).astype("float32")
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    assert theirs.config.id2label == {0: "cat", 1: "dog", 2: "owl"}
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images)).logits.numpy()
    assert_close(to_numpy(ours(images.transpose(0, 2, 3, 1))), expected, TOLERANCE)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    picture = np.full((40, 40, 1), 255, np.uint8)
    pixels = processor(picture, input_data_format="channels_last", return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(pixels, np.full((1, 1, 32, 32), (1 - 0.3) / 0.2), rtol=1e-5)
    assert "cat, dog, owl" in (folder / "README.md").read_text()
    with pytest.raises(PretrainedError, match="timm has models of 4 stages, not of 3"):
        write_weights(checkpoint.weights, tmp_path / "timm", "timm", settings, checkpoint.options)
    assert not (tmp_path / "timm").exists()


def test_a_folder_of_timm_has_what_its_weights_do_not_show(tmp_path):
    model = timm_model(in_chans=1, act_layer="gelu_tanh", norm_eps=1e-3)
    safetensors_torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    options = {"activation": "gelu_tanh", "epsilon": 1e-3}
    weights = read_weights(tmp_path / "model.safetensors")
    write_weights(weights, tmp_path / "folder", "timm", ImageSettings((64, 64), (0.5,), (0.25,)), options)
    again = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    images = torch.randn((2, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_array_equal(again(images).numpy(), model(images).numpy())
    assert read_checkpoint(tmp_path / "folder" / "model.safetensors").options == options
