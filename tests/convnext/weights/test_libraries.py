"""Full sizes against the real models of Transformers and timm, in both directions; where these are installed.

pip install -e '.[test,libraries]'
"""

import keras
import numpy as np
import pytest

from convnext import ConvNeXtV1, ConvNeXtV2, create_from_weights
from convnext.weights import ImageSettings, write_weights
from convnext.weights.loader import named_variables
from tests.comparison import assert_close, to_numpy
from tests.torch_weights import draw
from tests.torchvision_import import import_without_extension

import_without_extension()
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = [(2, "atto"), (1, "tiny")]  # the smallest of each version; names and shapes of all: test_names.py
MODELS = {1: ConvNeXtV1, 2: ConvNeXtV2}
CLASSES = 7  # no default of any library
SMALL = (96, 160)
TOLERANCE = 1e-4


def huggingface_model(version, variant):
    size = MODELS[version].MODEL_VARIANTS[variant]
    kind = "ConvNextV2" if version == 2 else "ConvNext"
    config = getattr(transformers, f"{kind}Config")(
        depths=list(size.depths), hidden_sizes=list(size.dims), num_labels=CLASSES
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


@pytest.fixture(scope="module")
def weights(pair):
    """`(weights of our model, those of its encoder)`, by name."""
    values = {name: keras.ops.convert_to_numpy(variable) for name, variable in named_variables(pair[1]).items()}
    return values, {name: value for name, value in values.items() if not name.startswith("head")}


@pytest.fixture(scope="module")
def small_outputs(pair):
    """What `our_outputs` returns for images of the size `SMALL`."""
    return our_outputs(pair[1], random_images(*SMALL))


@pytest.mark.parametrize("size", [(224, 224), SMALL])
def test_logits_and_features_equal_those_of_transformers(pair, small_outputs, size):
    theirs, ours = pair
    images = random_images(*size)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images), output_hidden_states=True)
    logits, features = small_outputs if size == SMALL else our_outputs(ours, images)
    for feature_map, hidden_state in zip(features, expected.hidden_states[1:], strict=True):
        assert_close(feature_map, hidden_state.numpy(), TOLERANCE)
    assert_close(logits, expected.logits.numpy(), TOLERANCE)


def test_what_is_trained_here_goes_on_in_transformers(weights, small_outputs, tmp_path, monkeypatch):
    classifier, encoder = weights
    write_weights(classifier, tmp_path, "huggingface")
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert_same_logits(lambda images: theirs(images).logits, small_outputs)
    # `AutoBackbone` of Transformers 5 takes no folder; before, it asks the hub for a model of that name.
    monkeypatch.setattr("huggingface_hub.HfApi.repo_exists", lambda *_, **__: True)
    backbone = transformers.AutoBackbone.from_pretrained(tmp_path, out_features=["stage1", "stage4"]).eval()
    assert type(backbone).__name__ == theirs.config.architectures[0].replace("ForImageClassification", "Backbone")
    with torch.no_grad():
        maps = backbone(torch.from_numpy(random_images(*SMALL)), output_hidden_states=True).hidden_states
    for one, other in zip(maps[1:], small_outputs[1], strict=True):
        assert_close(other, one.numpy(), TOLERANCE)

    write_weights(encoder, tmp_path / "encoder", "huggingface")
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "encoder", num_labels=3)
    kernel = theirs.base_model.encoder.stages[3].layers[1].pwconv1.weight.detach().numpy()
    np.testing.assert_array_equal(kernel.T, encoder["stage_3/block_1/expansion/kernel"])


def test_what_is_trained_here_goes_on_in_timm(request, weights, small_outputs, tmp_path):
    timm = pytest.importorskip("timm")
    version, variant = request.node.callspec.params["pair"]
    name = f"convnext{'v2' if version == 2 else ''}_{variant}"
    classifier, encoder = weights
    write_weights(classifier, tmp_path / "classifier.safetensors", "timm")
    path = str(tmp_path / "classifier.safetensors")
    theirs = timm.create_model(name, num_classes=CLASSES, checkpoint_path=path).eval()
    assert_same_logits(theirs, small_outputs)

    write_weights(classifier, tmp_path / "folder", "timm", ImageSettings((96, 160), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    theirs = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    assert_same_logits(theirs, small_outputs)
    settings = timm.data.resolve_model_data_config(theirs)
    assert tuple(settings["mean"]) == (0.1, 0.2, 0.3) and tuple(settings["input_size"]) == (3, 96, 160)
    pyramid = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True, features_only=True).eval()
    with torch.no_grad():
        maps = pyramid(torch.from_numpy(random_images(*SMALL)))
    for one, other in zip(maps, small_outputs[1], strict=True):
        assert_close(other, one.numpy(), TOLERANCE)

    write_weights(encoder, tmp_path / "encoder.safetensors", "timm")
    write_weights(encoder, tmp_path / "encoder", "timm")
    for path in (tmp_path / "encoder.safetensors", tmp_path / "encoder" / "model.safetensors"):
        theirs = timm.create_model(name, num_classes=0, checkpoint_path=path).eval()
        with torch.no_grad():
            last = theirs.forward_features(torch.from_numpy(random_images(*SMALL)))
        assert_close(small_outputs[1][-1], last.numpy(), TOLERANCE)
    overlay = {"file": str(tmp_path / "encoder.safetensors"), "num_classes": 0}
    theirs = timm.create_model(name, pretrained=True, num_classes=3, pretrained_cfg_overlay=overlay)
    kernel = theirs.stages[3].blocks[1].mlp.fc1.weight.detach().numpy()
    np.testing.assert_array_equal(kernel.reshape(kernel.shape[:2]).T, encoder["stage_3/block_1/expansion/kernel"])


def assert_same_logits(theirs, small_outputs):
    """Asserts that a function of images, `(B, 3, H, W)`, returns our logits."""
    with torch.no_grad():
        expected = theirs(torch.from_numpy(random_images(*SMALL)))
    assert_close(small_outputs[0], expected.numpy(), TOLERANCE)
