"""Names and layouts against the key lists of the real models of timm and Transformers, for all thirteen sizes."""

import functools
import gzip
import json

import numpy as np
import pytest
import safetensors.numpy

from convnext import ConvNeXtV1, ConvNeXtV2, PretrainedError
from convnext.weights import Architecture
from convnext.weights.loader import named_variables
from convnext.weights.names import to_theirs
from convnext.weights.recognition import find_convnext
from tests.golden_weights import DATA, our_layout, our_name, read
from tests.small_models import no_values

MODELS = {1: ConvNeXtV1, 2: ConvNeXtV2}
SIZES = [(version, variant) for version, model in MODELS.items() for variant in model.MODEL_VARIANTS]


def to_ours(tensors):
    return find_convnext({"": tensors}).weights


@functools.cache
def real_keys():
    return json.loads(gzip.decompress((DATA / "port" / "keys.json.gz").read_bytes()))


@functools.cache
def our_shapes(version, variant):
    """`{our name: shape}` of a published size."""
    with no_values():
        model = MODELS[version].from_variant(variant)
    return {name: tuple(variable.shape) for name, variable in named_variables(model).items()}


def blank(shapes):
    """Arrays that take no memory, whatever their shapes."""
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("library", ["timm", "huggingface"])
@pytest.mark.parametrize(("version", "variant"), SIZES)
def test_our_weights_take_the_names_and_shapes_of_the_real_model(library, version, variant):
    expected = real_keys()[library][f"convnext{'v2' if version == 2 else ''}_{variant}"]
    weights = blank(our_shapes(version, variant))
    written = to_theirs(weights, library, Architecture.of(weights))
    assert {name: list(value.shape) for name, value in written.items()} == expected


@pytest.mark.parametrize("library", ["timm", "huggingface"])
@pytest.mark.parametrize(("version", "variant"), [size for size in SIZES if size[1] in ("atto", "tiny", "small")])
def test_the_real_models_weights_take_our_names_and_shapes(library, version, variant):
    weights = to_ours(blank(real_keys()[library][f"convnext{'v2' if version == 2 else ''}_{variant}"]))
    assert {name: value.shape for name, value in weights.items()} == our_shapes(version, variant)


@pytest.mark.parametrize("checkpoint", ["fair_finetuned_small", "fair_fcmae_small"])
def test_the_authors_checkpoints_are_read_as_the_independent_version_reads_them_and_written_bit_by_bit(checkpoint):
    tensors = read(checkpoint)
    weights = to_ours(tensors)
    assert weights.keys() == {our_name(key) for key in tensors}
    for key, tensor in tensors.items():
        name = our_name(key)
        np.testing.assert_array_equal(weights[name], our_layout(key, tensor, weights[name].shape), err_msg=key)
    written = to_theirs(weights, "fair", Architecture.of(weights))
    assert written.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(written[key], tensor, err_msg=key)


@pytest.mark.parametrize(("library", "called"), [("timm", "timm"), ("huggingface", "Transformers")])
def test_a_weight_without_a_name_elsewhere_is_an_error(library, called):
    weights = to_ours(read("fair_fcmae_small"))
    with pytest.raises(PretrainedError, match=f"{called} has no name for decoder/"):
        to_theirs(weights, library, Architecture.of(weights))


@pytest.mark.parametrize(
    ("checkpoint", "key", "shape", "expected"),
    [
        ("fair_finetuned_small", "stages.0.0.grn.gamma", (2, 1, 1, 16), "(1, 1, 1, channels)"),
        ("fair_finetuned_small", "stages.0.0.dwconv.weight", (4, 2, 7, 7), "(channels, 1, rows, columns)"),
        ("fair_fcmae_small", "encoder.stages.0.0.dwconv.kernel", (48, 4), "(side * side, channels)"),
        ("fair_fcmae_small", "encoder.stages.0.0.dwconv.bias", (2, 4), "(1, channels)"),
    ],
)
def test_an_array_of_another_shape_is_an_error_that_names_it(checkpoint, key, shape, expected):
    tensors = read(checkpoint)
    assert key in tensors
    with pytest.raises(PretrainedError) as error:
        to_ours({**tensors, key: np.zeros(shape)})
    assert str(error.value) == f"{key} has the shape {shape}, not {expected}"


@pytest.mark.parametrize(
    ("checkpoint", "part", "key", "shape"),
    [
        ("fair_finetuned_small", "head", "head.weight", (1, 5, 16)),
        ("fair_finetuned_small", "head", "head.weight", (5, 17)),
        ("fair_finetuned_small", "head", "head.bias", ()),
        ("fair_finetuned_small", "head", "head.bias", (6,)),
        ("fair_finetuned_small", "head", "norm.weight", (17,)),
        ("fair_fcmae_small", "decoder/", "proj.weight", (8, 16, 3, 3)),
        ("fair_fcmae_small", "decoder/", "proj.weight", (8, 17, 1, 1)),
        ("fair_fcmae_small", "decoder/", "mask_token", (1, 8, 2, 1)),
    ],
)
def test_a_head_or_decoder_of_another_network_is_left_out_whole(checkpoint, part, key, shape):
    tensors = read(checkpoint)
    found = find_convnext({"": {**tensors, key: np.zeros(shape)}})
    expected = {our_name(name) for name in tensors if not our_name(name).startswith(part)}
    assert found.weights.keys() == expected and key in found.left_out
    assert {our_name(name) for name in found.left_out} == {our_name(name) for name in tensors} - expected


def test_a_pointwise_layer_of_timm_has_two_axes_or_is_a_1x1_convolution():
    tensors = safetensors.numpy.load_file(DATA / "port" / "timm_v2.safetensors")
    with pytest.raises(
        PretrainedError, match=r"fc1.weight has the shape \(16, 4, 3, 1\), not \(out, in\) or \(out, in, 1, 1\)"
    ):
        to_ours({**tensors, "stages.0.blocks.0.mlp.fc1.weight": np.zeros((16, 4, 3, 1))})


def test_an_array_of_ours_with_other_axes_is_an_error_that_names_it():
    weights = to_ours(read("fair_finetuned_small"))
    architecture = Architecture.of(weights)
    weights["stage_1/block_0/depthwise_conv/kernel"] = np.zeros((7, 7, 8, 2))
    with pytest.raises(PretrainedError, match=r"\(7, 7, 8, 2\), not \(rows, columns, channels, 1\)"):
        to_theirs(weights, "timm", architecture)


def test_a_foreign_name_is_shown_with_the_library_that_the_others_belong_to():
    tensors = read("fair_finetuned_small")
    tensors["stages.0.0.dwconv.wieght"] = tensors.pop("stages.0.0.dwconv.weight")
    with pytest.raises(PretrainedError, match="names that the authors' code does not give a ConvNeXt: stages.0.0.dwco"):
        to_ours(tensors)


def test_other_networks_are_recognised_as_no_convnext():
    with pytest.raises(PretrainedError, match="not those of a ConvNeXt of .*: it has layer1.0.conv1.weight, fc.weight"):
        to_ours({"layer1.0.conv1.weight": np.zeros(1), "fc.weight": np.zeros(1)})
    with pytest.raises(PretrainedError, match="not those of a ConvNeXt of .*: it has no tensors of floating"):
        to_ours({})


@pytest.mark.parametrize("key", ["stages..0.norm.bias", "stages.1x.0.norm.bias", "stages.0.0"])
def test_a_placeholder_stands_for_a_number_alone(key):
    with pytest.raises(PretrainedError, match=f"does not give a ConvNeXt: {key}"):
        to_ours({**read("fair_finetuned_small"), key: np.zeros(8)})
