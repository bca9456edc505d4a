"""Segmentation models against the same in NumPy, over encoders of any number of stages, at any size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convnext import ConvNeXtV1
from convnext.segmentation import Segmenter
from tests.comparison import assert_close, gradients, to_numpy
from tests.small_models import random_images, randomize, small_backbone

DECODERS = ("upernet", "fpn")


def make_segmenter(decoder="upernet", backbone=None, **arguments):
    backbone = small_backbone((None, None, 3), name="encoder") if backbone is None else backbone
    model = Segmenter(backbone, 5, decoder, decoder_dim=4, **arguments)
    randomize({variable.path: variable for variable in model.weights})
    return model


def conv(x, kernel):
    """A convolution that keeps the size."""
    side = kernel.shape[0]
    padded = np.pad(x, [(0, 0), (side // 2, side // 2), (side // 2, side // 2), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))
    return np.einsum("bhwcij,ijcd->bhwd", windows, kernel)


def normalize(x, gamma, beta):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-6) * gamma + beta


def resized(x, size):
    return tf.image.resize(x, size, antialias=False).numpy().astype("float64")


def pooled(x, bins):
    """Averages over a grid whose cells share no position."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, bins, height // bins, bins, width // bins, channels).mean(axis=(2, 4))


def logits_in_numpy(model, features, size):
    """What the decoder and the classifier make of feature maps."""
    weights = (*model.decoder.weights, *model.classifier.weights)
    values = {variable.path.removeprefix(f"{model.name}/"): to_numpy(variable) for variable in weights}

    def unit(x, name):
        x = conv(x, values[f"{name}/conv/kernel"])
        return np.maximum(normalize(x, values[f"{name}/norm/gamma"], values[f"{name}/norm/beta"]), 0.0)

    maps = [
        normalize(x, values[f"decoder/norm_{i}/gamma"], values[f"decoder/norm_{i}/beta"])
        for i, x in enumerate(features)
    ]
    *lower, last = range(len(maps))
    is_upernet = model.decoder_name == "upernet"
    if is_upernet:
        grids = [(unit(pooled(maps[last], bins), f"decoder/pyramid_pooling/conv_{bins}")) for bins in (1, 2, 3, 6)]
        sides = maps[last].shape[1:3]
        beside = np.concatenate([maps[last], *(resized(grid, sides) for grid in grids)], axis=-1)
        top = unit(beside, "decoder/pyramid_pooling/fusion")
    else:
        top = unit(maps[last], f"decoder/lateral_{last}")
    pyramid = [top]
    for i in reversed(lower):
        below = unit(maps[i], f"decoder/lateral_{i}")
        pyramid.insert(0, below + resized(pyramid[0], below.shape[1:3]))
    outputs = [unit(pyramid[i], f"decoder/conv_{i}") for i in (lower if is_upernet else (*lower, last))]
    outputs = [*outputs, top] if is_upernet else outputs
    outputs = [resized(x, outputs[0].shape[1:3]) for x in outputs]
    x = unit(np.concatenate(outputs, axis=-1), "decoder/fusion") if is_upernet else sum(outputs)
    return resized(x @ values["classifier/kernel"][0, 0] + values["classifier/bias"], size)


@pytest.mark.parametrize("decoder", DECODERS)
def test_logits_are_those_of_numpy(decoder):
    model = make_segmenter(decoder)
    images = random_images(2, 48, 96, 3)  # a last map of 6 x 12
    features = [to_numpy(x) for x in model.backbone.extract_features(images)]
    assert_close(model(images), logits_in_numpy(model, features, (48, 96)), 1e-5)


@pytest.mark.parametrize(("decoder", "size"), [("upernet", (45, 61)), ("fpn", (48, 57)), ("upernet", (3, 5))])
def test_an_image_of_any_size_is_padded_with_the_mean(decoder, size):
    model, images = make_segmenter(decoder), random_images(2, *size, 3)
    height, width = (-(-side // 8) * 8 for side in size)
    padded = np.zeros((2, height, width, 3), "float32")
    padded[:, : size[0], : size[1]] = images
    logits = model(images)
    assert logits.shape == (2, *size, 5)
    np.testing.assert_allclose(logits, model(padded)[:, : size[0], : size[1]], atol=1e-5)

    of_any_size = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))])
    np.testing.assert_allclose(of_any_size(images), logits, atol=2e-5)


@pytest.mark.parametrize(
    "backbone",
    [
        {"depths": (1,), "dims": (6,), "stem_stride": 8},
        {"depths": (1, 1), "dims": (4, 6), "stem_stride": 1, "model": ConvNeXtV1},
        {"depths": (1, 1, 1, 1), "dims": (4, 4, 6, 6), "output_stride": 4},
    ],
)
@pytest.mark.parametrize("decoder", DECODERS)
def test_encoders_of_any_stages_and_strides(decoder, backbone):
    """Every part of the model takes part."""
    model = make_segmenter(decoder, small_backbone((None, None, 3), **backbone), auxiliary=True, dropout_rate=0.0)
    images = random_images(1, 24, 40, 3)
    logits, auxiliary = model.call_with_auxiliary(images, training=True)
    assert logits.shape == auxiliary.shape == (1, 24, 40, 5)
    both = lambda: sum(tf.reduce_sum(values**2) for values in model.call_with_auxiliary(images))  # noqa: E731
    assert all(np.abs(gradient).max() > 0 for gradient in gradients(both, model.trainable_variables))


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_saved_model_is_the_same(decoder, tmp_path):
    model, images = make_segmenter(decoder, auxiliary=True), random_images(1, 24, 40, 3)
    model.backbone.stem.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))
    assert loaded.get_config() == model.get_config()
    assert [v.path for v in loaded.trainable_variables] == [v.path for v in model.trainable_variables]


def test_a_frozen_encoder_gets_no_gradient():
    model, images = make_segmenter(), random_images(1, 24, 40, 3)
    tensors = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        logits, _ = model.call_with_auxiliary(images, training=True, frozen_encoder=True)
    found = dict(zip([v.path for v in model.trainable_variables], tape.gradient(logits, tensors)))
    assert {path.split("/")[0] for path, gradient in found.items() if gradient is None} == {"encoder"}
    assert all(gradient is None for path, gradient in found.items() if path.startswith("encoder/"))


def test_the_auxiliary_head_sees_the_second_to_last_stage():
    model = make_segmenter(auxiliary=True)
    images = random_images(1, 32, 64, 3)
    features = model.backbone.extract_features(images)[-2]
    expected = resized(model.auxiliary_classifier(model.auxiliary_conv(features)), (32, 64))
    assert_close(model.call_with_auxiliary(images)[1], expected, 1e-5)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="decoder='unet' is not one of upernet, fpn"):
        Segmenter(small_backbone(), 5, "unet")
    with pytest.raises(ValueError, match="needs a backbone with include_top=False"):
        Segmenter(small_backbone(include_top=True), 5)
