"""Full sizes against the real models of Transformers and timm, in both directions; where these are installed.

pip install -e '.[test,libraries]'
"""

import keras
import numpy as np
import pytest

from convnext import ConvNeXtV1, ConvNeXtV2, create_from_weights
from convnext.weights import write_weights
from convnext.weights.loader import named_variables
from tests.comparison import assert_close, to_numpy
from tests.torchvision_operators import declare_missing_operators

declare_missing_operators()
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = [(2, "atto"), (2, "nano"), (2, "tiny"), (1, "tiny")]
MODELS = {1: ConvNeXtV1, 2: ConvNeXtV2}
TOLERANCE = 1e-4


def draw(model, seed=0):
    """Gives every weight of a PyTorch model a random value; those of normalizations are around one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = (
                "norm" in name and name.endswith("weight") or name.split(".")[-2] in ("0", "1") and parameter.ndim == 1
            )
            spread = 0.05 if parameter.ndim > 1 and "grn" not in name else 0.2
            parameter.copy_((1.0 if is_scale else 0.0) + spread * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def huggingface_model(version, variant):
    size = MODELS[version].MODEL_VARIANTS[variant]
    kind = "ConvNextV2" if version == 2 else "ConvNext"
    config = getattr(transformers, f"{kind}Config")(
        depths=list(size.depths), hidden_sizes=list(size.dims), num_labels=1000
    )
    return draw(getattr(transformers, f"{kind}ForImageClassification")(config))


def our_outputs(model, images):
    """`(logits, features)` of `(B, 3, H, W)`, features as PyTorch has them."""
    images = images.transpose(0, 2, 3, 1)
    features = [to_numpy(feature_map).transpose(0, 3, 1, 2) for feature_map in model.extract_features(images)]
    return to_numpy(model(images, training=False)), features


def random_images(height, width):
    return np.random.default_rng(0).normal(size=(2, 3, height, width)).astype("float32")


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"v{size[0]}-{size[1]}")
def pair(request, tmp_path_factory):
    """A model of Transformers, and ours with its weights."""
    theirs = huggingface_model(*request.param)
    folder = tmp_path_factory.mktemp("huggingface")
    theirs.save_pretrained(folder)
    ours = create_from_weights(folder / "model.safetensors", drop_path_rate=0.2)
    assert type(ours) is MODELS[request.param[0]]
    return theirs, ours


@pytest.mark.parametrize("size", [(224, 224), (96, 160)])
def test_logits_and_features_equal_those_of_transformers(pair, size):
    theirs, ours = pair
    images = random_images(*size)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images), output_hidden_states=True)
    logits, features = our_outputs(ours, images)
    for feature_map, hidden_state in zip(features, expected.hidden_states[1:], strict=True):
        assert_close(feature_map, hidden_state.numpy(), TOLERANCE)
    assert_close(logits, expected.logits.numpy(), TOLERANCE)


@pytest.mark.parametrize(("version", "variant"), SIZES)
def test_what_is_trained_here_goes_on_in_transformers(version, variant, tmp_path):
    ours = MODELS[version].from_variant(variant, num_classes=7)
    weights = _random_weights(ours)
    write_weights(weights, tmp_path, "huggingface")
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    _assert_same_logits(theirs, ours)

    encoder = {name: value for name, value in weights.items() if not name.startswith("head")}
    write_weights(encoder, tmp_path / "encoder", "huggingface")
    classifier = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "encoder", num_labels=3)
    kernel = classifier.base_model.encoder.stages[3].layers[1].pwconv1.weight.detach().numpy()
    np.testing.assert_array_equal(kernel.T, weights["stage_3/block_1/expansion/kernel"])


@pytest.mark.parametrize(("version", "variant"), SIZES)
def test_what_is_trained_here_goes_on_in_timm(version, variant, tmp_path):
    timm = pytest.importorskip("timm")
    name = f"convnext{'v2' if version == 2 else ''}_{variant}"
    ours = MODELS[version].from_variant(variant, num_classes=7)
    weights = _random_weights(ours)
    write_weights(weights, tmp_path / "classifier.safetensors", "timm")
    theirs = timm.create_model(name, num_classes=7, checkpoint_path=str(tmp_path / "classifier.safetensors")).eval()
    _assert_same_logits(theirs, ours)

    encoder = {key: value for key, value in weights.items() if not key.startswith("head")}
    write_weights(encoder, tmp_path / "encoder.safetensors", "timm")
    overlay = {"file": str(tmp_path / "encoder.safetensors"), "num_classes": 0}
    classifier = timm.create_model(name, pretrained=True, num_classes=3, pretrained_cfg_overlay=overlay)
    kernel = classifier.stages[3].blocks[1].mlp.fc1.weight.detach().numpy()
    np.testing.assert_array_equal(kernel.reshape(kernel.shape[:2]).T, weights["stage_3/block_1/expansion/kernel"])


def _random_weights(model):
    """Gives every weight of our model a random value, and returns them."""
    rng = np.random.default_rng(0)
    for name, variable in named_variables(model).items():
        spread = 0.05 if len(variable.shape) > 1 else 0.2
        variable.assign(name.endswith("norm/gamma") + spread * rng.normal(size=variable.shape).astype("float32"))
    return {name: keras.ops.convert_to_numpy(variable) for name, variable in named_variables(model).items()}


def _assert_same_logits(theirs, ours):
    images = random_images(96, 160)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images))
    expected = getattr(expected, "logits", expected)
    assert_close(our_outputs(ours, images)[0], expected.numpy(), TOLERANCE)
