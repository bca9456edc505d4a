"""The published variants, and saving."""

import keras
import numpy as np
import pytest

from convnext import ConvNeXtV2, create_convnext_v2
from tests.comparison import to_numpy
from tests.small_models import no_values, random_images, randomize, small_backbone, variables_of

PARAMETERS = {
    "atto": 3_708_400,
    "femto": 5_233_240,
    "pico": 9_066_280,
    "nano": 15_623_800,
    "tiny": 28_635_496,
    "base": 88_717_800,
    "large": 197_956_840,
    "huge": 660_289_640,
}


@pytest.mark.parametrize("variant", PARAMETERS)
def test_number_of_parameters_is_the_published_one(variant):
    with no_values():
        model = ConvNeXtV2.from_variant(variant)
    assert model.count_params() == PARAMETERS[variant]


def test_every_variant_is_counted():
    assert set(ConvNeXtV2.MODEL_VARIANTS) == set(PARAMETERS)


def test_an_unknown_variant_is_refused_with_the_list():
    with pytest.raises(ValueError, match="'giant'") as caught:
        create_convnext_v2("giant")
    for variant in PARAMETERS:
        assert variant in str(caught.value)


def test_create_passes_its_arguments_on():
    model = create_convnext_v2("atto", num_classes=7, input_shape=(32, 32, 1), drop_path_rate=0.1, depths=(1, 1, 1, 2))
    config = model.get_config()
    assert config["dims"] == (40, 80, 160, 320)
    assert config["depths"] == (1, 1, 1, 2)
    assert config["drop_path_rate"] == 0.1
    assert model(random_images(1, 32, 32, 1)).shape == (1, 7)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"include_top": True, "num_classes": 5, "drop_path_rate": 0.2, "dropout_rate": 0.1, "dtype": "mixed_bfloat16"},
        {"input_shape": (None, None, 1), "stem_stride": 3, "kernel_size": 5, "name": "encoder"},
    ],
)
def test_a_saved_model_gives_the_same_outputs(tmp_path, arguments):
    model = small_backbone(**arguments)
    randomize(variables_of(model))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, ConvNeXtV2)
    assert loaded.get_config() == model.get_config()
    images = random_images(2, 32, 48, model.image_shape[-1])
    np.testing.assert_array_equal(to_numpy(loaded(images)), to_numpy(model(images)))


def test_configuration_makes_an_equal_model():
    arguments = {"include_top": True, "num_classes": 5, "drop_path_rate": 0.2, "dropout_rate": 0.1, "kernel_size": 5}
    model = small_backbone(stem_stride=3, **arguments)
    copy = ConvNeXtV2.from_config(model.get_config())
    assert {"stem_stride": 3, **arguments}.items() <= copy.get_config().items()
    assert {name: v.shape for name, v in variables_of(copy).items()} == {
        name: v.shape for name, v in variables_of(model).items()
    }
