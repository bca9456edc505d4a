"""Names and layouts against the key lists of the real models of timm and Transformers, for all thirteen sizes."""

import functools
import gzip
import json

import numpy as np
import pytest

from convnext import ConvNeXtV1, ConvNeXtV2, PretrainedError
from convnext.weights import Architecture, fair, huggingface, timm
from convnext.weights.loader import named_variables
from convnext.weights.names import Rule, Scheme, recognise
from convnext.weights.reading import SCHEMES
from tests.golden_weights import DATA, our_layout, our_name, read
from tests.small_models import no_values

MODELS = {1: ConvNeXtV1, 2: ConvNeXtV2}
SIZES = [(version, variant) for version, model in MODELS.items() for variant in model.MODEL_VARIANTS]


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
    module = {"timm": timm, "huggingface": huggingface}[library]
    written = module.writing_scheme(Architecture.of(weights)).write(weights)
    assert {name: list(value.shape) for name, value in written.items()} == expected


@pytest.mark.parametrize("library", ["timm", "huggingface"])
@pytest.mark.parametrize(("version", "variant"), [size for size in SIZES if size[1] in ("atto", "tiny", "small")])
def test_the_real_models_weights_take_our_names_and_shapes(library, version, variant):
    tensors = blank(real_keys()[library][f"convnext{'v2' if version == 2 else ''}_{variant}"])
    weights = recognise(tensors, SCHEMES).read(tensors)
    assert {name: value.shape for name, value in weights.items()} == our_shapes(version, variant)


@pytest.mark.parametrize(
    ("checkpoint", "scheme"),
    [("fair_finetuned_small", fair.DENSE_SCHEME), ("fair_fcmae_small", fair.SPARSE_SCHEME)],
)
def test_the_authors_checkpoints_are_read_as_the_independent_version_reads_them_and_written_bit_by_bit(
    checkpoint, scheme
):
    tensors = read(checkpoint)
    assert recognise(tensors, SCHEMES) is scheme
    weights = scheme.read(tensors)
    assert weights.keys() == {our_name(key) for key in tensors}
    for key, tensor in tensors.items():
        name = our_name(key)
        np.testing.assert_array_equal(weights[name], our_layout(key, tensor, weights[name].shape), err_msg=key)
    written = scheme.write(weights)
    assert written.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(written[key], tensor, err_msg=key)


def test_a_weight_without_a_name_elsewhere_is_an_error():
    with pytest.raises(PretrainedError, match="timm has no name for decoder/mask_token"):
        timm.READING.write({"decoder/mask_token": np.zeros(4)})


def test_an_array_with_other_axes_is_an_error_that_names_it():
    tensors = read("fair_finetuned_small")
    tensors["head.weight"] = tensors["head.weight"][None]
    with pytest.raises(PretrainedError, match=r"head.weight has the shape \(1, 5, 16\), which should have 2 axes"):
        fair.DENSE_SCHEME.read(tensors)


def test_a_foreign_name_is_shown_with_the_library_that_the_others_belong_to():
    tensors = read("fair_finetuned_small")
    tensors["stages.0.0.dwconv.wieght"] = tensors.pop("stages.0.0.dwconv.weight")
    with pytest.raises(PretrainedError, match="names that the authors' code does not give a ConvNeXt: stages.0.0.dwco"):
        recognise(tensors, SCHEMES)


def test_other_networks_are_recognised_as_no_convnext():
    with pytest.raises(PretrainedError, match="not those of a ConvNeXt of .*: it has layer1.0.conv1.weight, fc.weight"):
        recognise(["layer1.0.conv1.weight", "fc.weight"], SCHEMES)
    with pytest.raises(PretrainedError, match="not those of a ConvNeXt of .*: it has nothing"):
        recognise([], SCHEMES)


def test_a_placeholder_stands_for_a_number_alone():
    scheme = Scheme("x", (Rule("stage_{stage}/a", "stages.{stage}.a"),))
    assert scheme.unknown(["stages.12.a"]) == []
    assert scheme.unknown(["stages..a", "stages.1x.a", "stagesx1.a"]) == ["stages..a", "stages.1x.a", "stagesx1.a"]
