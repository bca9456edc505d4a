"""What can be asked of the benchmark of training steps."""

import pytest

from experiments.benchmarks.settings import StepSettings
from experiments.errors import UserError


def test_ratio_zero_stands_for_one_hidden_patch():
    settings = StepSettings(mask_ratio=(0.0, 0.6))
    assert settings.num_patches == 49
    assert settings.num_visible(0.0) == 48
    assert settings.config(0.0).pretrain.mask_ratio == pytest.approx(1 / 49)
    assert settings.num_visible(0.6) == 19
    assert settings.config(0.6).pretrain.mask_ratio == 0.6


def test_sizes_of_ones_own_make_the_model():
    settings = StepSettings(depths=(1, 2), dims=(4, 8), image_size=24)
    assert settings.num_patches == 9
    assert settings.config(0.6).model.stages == ((1, 2), (4, 8))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("variant", "giant", "variant='giant' is not one of atto, "),
        ("execution", ("sparse", "fast"), "execution='fast' is not one of sparse, dense, pytorch."),
        ("without", ("speed",), "without='speed' is not one of onednn,"),
        ("execution", (), "execution is empty"),
        ("execution", ("dense", "dense"), "execution names one of its values twice."),
        ("mask_ratio", (0.6, 0.6), "mask_ratio names one of its values twice."),
        ("precision", "float16", "precision='float16' is not one of float32, bfloat16."),
        ("image_size", 100, "image_size=100: An image of 100x100 does not divide"),
        ("mask_ratio", (0.6, 1.0), "lies in (0, 1), got 1.0"),
        ("mask_ratio", (0.99,), "leaves 0 of 49 patches visible"),
        ("mask_ratio", (), "mask_ratio is empty"),
        ("depths", (1, 2), "depths=(1, 2) and dims=() need one number a stage."),
        ("rounds", 0, "rounds is at least 1, got 0."),
        ("warmup", 2, "warmup is at least 3, got 2."),
    ],
)
def test_a_wrong_setting_is_named(field, value, says):
    with pytest.raises(UserError) as error:
        StepSettings(**{field: value})
    assert says in str(error.value)
