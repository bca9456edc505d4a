"""A step without one of the measures that make it fast computes the same."""

import numpy as np
import pytest

from convnext.tf_cpu import depthwise, fusion, patch_conv
from experiments.benchmarks.contenders import without
from experiments.benchmarks.settings import MEASURES, StepSettings
from experiments.optim.fused_adamw import FusedAdamW
from fcmae.decoder import Decoder
from tests.comparison import gradients
from tests.small_models import parts_of, random_images, random_visible, randomize, small_fcmae

PLACES = {
    "depthwise_gradient": (depthwise, "is_tensorflow_on_cpu"),
    "patch_products": (patch_conv, "is_tensorflow_on_cpu"),
    "compiled_chains": (fusion, "LEAST_VALUES"),
    "fused_adamw": (FusedAdamW, "adam_step"),
    "hidden_only": (Decoder, "call"),
}


def loss_and_gradients(model):
    images, visible = random_images(2, 32, 48, 3), random_visible(2, model.num_patches, model.num_visible)
    return gradients(lambda: sum(model.image_losses(images, visible, training=True)), list(parts_of(model).values()))


def test_every_measure_can_be_taken_back():
    assert tuple(without.TAKE_BACK) == MEASURES and {*PLACES, "onednn"} == set(MEASURES)
    assert without.variables("onednn") == {"TF_ENABLE_ONEDNN_OPTS": "0"}


@pytest.mark.parametrize("measure", PLACES)
def test_the_gradients_are_the_same(measure, monkeypatch):
    place, name = PLACES[measure]
    before = getattr(place, name)
    monkeypatch.setattr(place, name, before)  # and puts it back at the end
    model = small_fcmae()
    randomize(parts_of(model))
    expected = loss_and_gradients(model)
    without.take_back(measure)
    assert getattr(place, name) != before
    for actual, value in zip(loss_and_gradients(model), expected, strict=True):
        np.testing.assert_allclose(actual, value, rtol=1e-4, atol=1e-4)


def test_there_is_a_contender_for_each_measure():
    settings = StepSettings(execution=("dense", "sparse"), without=("onednn",))
    assert settings.contenders == {
        "dense": ("dense", ""),
        "sparse": ("sparse", ""),
        "without onednn": ("dense", "onednn"),
    }
