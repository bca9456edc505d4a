"""From a configuration to models."""

import random

import keras
import numpy as np
import pytest

from convnext import ConvNeXtV1, ConvNeXtV2
from experiments.config import Config, DataConfig, FinetuneConfig, ModelConfig, PretrainConfig
from experiments.models import initial_weights, make_classifier, make_encoder, make_fcmae, make_random_encoder
from tests.experiments.tiny import tiny_config


@pytest.mark.parametrize(("version", "kind"), [(1, ConvNeXtV1), (2, ConvNeXtV2)])
@pytest.mark.parametrize("execution", ["sparse", "dense"])
def test_a_model_is_what_the_configuration_says(version, kind, execution):
    config = Config(
        model=ModelConfig(version=version, depths=(1, 2), dims=(4, 6), stem_stride=2, decoder_dim=8, decoder_depth=2),
        data=DataConfig(image_size=32, channels=1, mean=(0.5,), std=(0.5,)),
        pretrain=PretrainConfig(mask_ratio=0.75, execution=execution),
    )
    fcmae, classifier = make_fcmae(config), make_classifier(config, 7)
    for model in (make_encoder(config), classifier, fcmae.backbone):
        assert type(model) is kind
        assert (model.depths, model.dims, model.stem_stride) == ((1, 2), (4, 6), 2)
        assert model.image_shape == (32, 32, 1)
    assert (fcmae.execution, fcmae.mask_ratio, fcmae.decoder_dim, fcmae.decoder_depth) == (execution, 0.75, 8, 2)
    assert classifier.num_classes == 7


def test_the_initial_weights_of_the_logits_are_multiplied():
    values = {}
    for scale in (1.0, 0.001):
        keras.utils.set_random_seed(0)
        model = make_classifier(tiny_config(finetune={"head_init_scale": scale}), 5)
        values[scale] = {variable.path: np.asarray(variable.value) for variable in model.weights}
    for path, value in values[1.0].items():
        factor = 0.001 if path == "classifier/head/kernel" else 1.0
        np.testing.assert_allclose(values[0.001][path], value * factor, rtol=1e-6, err_msg=path)
    assert 1e-5 < values[0.001]["classifier/head/kernel"].std() < 2e-5  # the authors' deviation, cut at two of it
    assert FinetuneConfig().head_init_scale == 0.001


def test_a_published_size_of_the_first_version():
    assert ModelConfig(version=1, variant="xlarge").stages == ((3, 3, 27, 3), (256, 512, 1024, 2048))


def test_the_random_encoder_is_the_one_that_a_run_begins_with_and_leaves_no_trace():
    config = Config(
        seed=5,
        model=ModelConfig(depths=(1, 1), dims=(4, 6), decoder_dim=8),
        data=DataConfig(image_size=32, channels=1, mean=(0.5,), std=(0.5,)),
    )
    keras.utils.set_random_seed(config.seed)
    fcmae = make_fcmae(config)
    random.seed(11)
    expected = [random.random(), random.random()]
    random.seed(11)
    encoder = make_random_encoder(config)
    assert random.random() == expected[0]
    with pytest.raises(ZeroDivisionError), initial_weights(0):
        1 / random.randrange(1)
    assert random.random() == expected[1]
    assert len(encoder.weights) > 10 and np.std(encoder.weights[0]) > 0.01
    for one, other in zip(encoder.weights, fcmae.backbone.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one.value), np.asarray(other.value), err_msg=one.path)
