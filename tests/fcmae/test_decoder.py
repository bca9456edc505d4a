"""The decoder."""

import keras
import numpy as np
import pytest

from fcmae.decoder import Decoder
from tests import references
from tests.comparison import assert_close, to_numpy
from tests.small_models import random_images, random_visible, randomize, variables_of


def make_decoder(depth=1, **arguments):
    layer = Decoder(6, depth, 12, **arguments)
    layer.build((None, 3, 5, 8))
    return layer


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_decoder_equals_the_reference(depth):
    layer = make_decoder(depth)
    weights = randomize(variables_of(layer))
    latent, visible = random_images(2, 3, 5, 8), random_visible(2, 15, 6)
    expected = references.decode(latent.astype("float64"), visible.reshape(2, 3, 5), weights, depth)
    assert_close(layer(latent, visible), expected, 1e-5)


def test_latent_at_hidden_patches_does_not_enter():
    layer = make_decoder()
    randomize(variables_of(layer))
    latent, visible = random_images(2, 3, 5, 8), random_visible(2, 15, 6)
    changed = latent + 10.0 * (1.0 - visible.reshape(2, 3, 5, 1))
    np.testing.assert_array_equal(to_numpy(layer(changed, visible)), to_numpy(layer(latent, visible)))


def test_mask_token_starts_as_a_normal_of_small_deviation():
    layer = Decoder(2000, 0, 4)
    layer.build((None, 1, 1, 2))
    values = to_numpy(layer.mask_token)
    assert values.std() == pytest.approx(0.02, rel=0.1)
    assert abs(values.mean()) < 0.002
    # A truncated normal ends at two deviations.
    assert np.abs(values).max() > 0.045


@pytest.mark.parametrize("chosen", [None, 4])
def test_the_announced_shape_is_that_of_the_prediction(chosen):
    layer = make_decoder(dtype="mixed_bfloat16")
    latent, visible = keras.Input((3, 5, 8)), keras.Input((15,))
    indices = None if chosen is None else keras.Input((chosen,), dtype="int32")
    symbolic = layer(latent, visible, chosen=indices)
    arrays = random_images(2, 3, 5, 8), random_visible(2, 15, 6), None if chosen is None else np.zeros((2, 4), "int32")
    outputs = layer(*arrays)
    assert symbolic.shape == (None, *outputs.shape[1:]) == (None, chosen or 15, 12)
    assert symbolic.dtype == outputs.dtype == "bfloat16"


def test_decoder_survives_its_configuration():
    layer = make_decoder(2, name="here")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (copy.name, copy.dim, copy.depth, copy.patch_values) == ("here", 6, 2, 12)
