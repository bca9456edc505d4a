"""Outputs and gradients against those of the authors' code, for the weights of both kinds of their checkpoints."""

import pytest
from keras import ops

from convnext import ConvNeXtV2
from fcmae import FCMAE
from fcmae.encoder import EXECUTIONS
from tests.comparison import assert_close, gradients
from tests.golden_weights import assign, read
from tests.small_models import parts_of, variables_of

TOLERANCE = 1e-4
SIZE = {"depths": (1, 1, 2, 1), "dims": (4, 8, 12, 16)}


def make_classifier():
    model = ConvNeXtV2(**SIZE, num_classes=5, input_shape=(64, 96, 3))
    assign("fair_finetuned_small", variables_of(model))
    return model


def make_autoencoder(**arguments):
    backbone = ConvNeXtV2(**SIZE, input_shape=(128, 128, 3), include_top=False)
    model = FCMAE(backbone, decoder_dim=8, **arguments)
    assign("fair_fcmae_small", parts_of(model))
    return model


def mean_loss(model, golden):
    visible = 1.0 - golden["mask"]
    return ops.mean(model.image_losses(golden["img"], visible))


@pytest.fixture(scope="module")
def golden():
    return read("golden")


@pytest.fixture(scope="module", params=EXECUTIONS)
def autoencoder(request):
    return make_autoencoder(execution=request.param)


@pytest.fixture(scope="module")
def loss_gradients(autoencoder, golden):
    variables = parts_of(autoencoder)
    values = gradients(lambda: mean_loss(autoencoder, golden), list(variables.values()))
    return dict(zip(variables, values))


def test_features_and_logits_equal_the_authors(golden):
    model = make_classifier()
    features = model.extract_features(golden["x"])
    assert len(features) == 4
    for stage, feature_map in enumerate(features):
        assert_close(feature_map, golden[f"f{stage}"], TOLERANCE)
    assert_close(model(golden["x"]), golden["logits"], TOLERANCE)


def test_latent_equals_the_authors(autoencoder, golden):
    latent = autoencoder.encode(golden["img"], 1.0 - golden["mask"])
    assert_close(latent, golden["latent"], TOLERANCE)


def test_prediction_equals_the_authors_in_order(autoencoder, golden):
    prediction = autoencoder.predict_patches(golden["img"], 1.0 - golden["mask"])
    assert_close(prediction, golden["pred"], TOLERANCE)


@pytest.mark.parametrize(("normalize_targets", "key"), [(True, "loss"), (False, "loss_raw")])
def test_loss_equals_the_authors(golden, normalize_targets, key):
    model = make_autoencoder(normalize_targets=normalize_targets)
    assert_close(mean_loss(model, golden), golden[key], TOLERANCE)


@pytest.mark.parametrize(
    ("name", "key", "axes"),
    [
        ("stem/conv/kernel", "g_stem", (2, 3, 1, 0)),
        ("stage_0/block_0/depthwise_conv/kernel", "g_dw", (2, 3, 0, 1)),
        ("stage_2/block_1/grn/gamma", "g_gamma", None),
    ],
)
def test_gradient_equals_the_authors(loss_gradients, golden, name, key, axes):
    expected = golden[key].transpose(axes) if axes else golden[key].reshape(-1)
    assert_close(loss_gradients[name], expected, TOLERANCE)
