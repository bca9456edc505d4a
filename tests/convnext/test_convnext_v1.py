"""The published variants of the first version, and saving."""

import keras
import numpy as np
import pytest

from convnext import ConvNeXtV1, create_convnext_v1
from tests.comparison import to_numpy
from tests.small_models import no_values, random_images, randomize, small_backbone, variables_of

PARAMETERS = {
    "tiny": 28_589_128,
    "small": 50_223_688,
    "base": 88_591_464,
    "large": 197_767_336,
    "xlarge": 350_196_968,
}


@pytest.mark.parametrize("variant", PARAMETERS)
def test_number_of_parameters_is_the_published_one(variant):
    with no_values():
        model = ConvNeXtV1.from_variant(variant)
    assert model.count_params() == PARAMETERS[variant]


def test_every_variant_is_counted():
    assert set(ConvNeXtV1.MODEL_VARIANTS) == set(PARAMETERS)


def test_a_variant_of_the_second_version_is_refused_with_the_list():
    with pytest.raises(ValueError, match="No variant is called 'atto'; there are tiny, small, base, large, xlarge"):
        create_convnext_v1("atto")


def test_a_saved_model_gives_the_same_outputs(tmp_path):
    arguments = {"include_top": True, "num_classes": 5, "drop_path_rate": 0.2, "layer_scale_init": 0.3}
    model = small_backbone(model=ConvNeXtV1, **arguments)
    assert arguments.items() <= model.get_config().items()
    np.testing.assert_allclose(to_numpy(model.stages[1].blocks[1].layer_scale.gamma), np.full(6, 0.3), rtol=1e-6)
    randomize(variables_of(model))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is ConvNeXtV1 and loaded.get_config() == model.get_config()
    images = random_images(2, 32, 48, 3)
    np.testing.assert_array_equal(to_numpy(loaded(images)), to_numpy(model(images)))


def test_create_passes_its_arguments_on_and_a_small_image_works():
    model = create_convnext_v1("tiny", num_classes=7, input_shape=(32, 32, 4), depths=(1, 1, 1, 1), dims=(4, 6, 8, 10))
    assert model(random_images(2, 32, 32, 4)).shape == (2, 7)
