"""The configuration: what it refuses, and how it travels through dictionaries."""

import dataclasses
import json
import re

import pytest

from experiments.config import Config, DataConfig, FinetuneConfig, ModelConfig, PretrainConfig, WandbConfig
from experiments.errors import UserError
from tests.experiments.tiny import tiny_config

TRAINING_ERRORS = [
    ({"epochs": 0}, "{}.epochs must be at least 1, got 0."),
    ({"batch_size": 0}, "{}.batch_size must be at least 1, got 0."),
    ({"accumulation_steps": 0}, "{}.accumulation_steps must be at least 1, got 0."),
    ({"steps": -1}, "{}.steps must be at least 0, got -1."),
    ({"min_learning_rate": -1e-6}, "{}.min_learning_rate must be at least 0, got -1e-06."),
    ({"warmup_epochs": -0.5}, "{}.warmup_epochs must be at least 0, got -0.5."),
    ({"weight_decay": -0.1}, "{}.weight_decay must be at least 0, got -0.1."),
    ({"clip_norm": -1.0}, "{}.clip_norm must be at least 0, got -1.0."),
    ({"evaluations": -1}, "{}.evaluations must be at least 0, got -1."),
    ({"base_learning_rate": 0.0}, "{}.base_learning_rate must be above 0."),
    ({"beta_1": 1.0}, "{}.beta_1 and beta_2 must be in [0, 1)."),
    ({"beta_2": -0.1}, "{}.beta_1 and beta_2 must be in [0, 1)."),
    ({"crop_scale": (0.5, 0.2)}, "{}.crop_scale must be (smallest, largest) with 0 < smallest <= largest <= 1"),
    ({"crop_scale": (0.0, 1.0)}, "{}.crop_scale must be (smallest, largest) with 0 < smallest <= largest <= 1"),
    ({"crop_scale": (0.5, 1.1)}, "{}.crop_scale must be (smallest, largest) with 0 < smallest <= largest <= 1"),
    (
        {"crop_scale": (0.5,)},
        "{}.crop_scale must be (smallest, largest) with 0 < smallest <= largest <= 1, got (0.5,).",
    ),
    ({"crop": "square"}, "{}.crop='square' is not one of auto, resized, padded."),
    ({"batch_size": 10, "accumulation_steps": 4}, "{}.batch_size=10 is not divisible by {}.accumulation_steps=4."),
]
ERRORS = [
    (ModelConfig, {"variant": "giant"}, "model.variant='giant' is not one of atto, femto, pico,"),
    (
        ModelConfig,
        {"version": 1},
        "model.variant='atto' is not one of tiny, small, base, large, xlarge, the sizes of ver",
    ),
    (ModelConfig, {"version": 3}, "model.version must be 1 or 2, got 3."),
    (PretrainConfig, {"execution": "fast"}, "pretrain.execution='fast' is not one of sparse, dense."),
    (Config, {"pretrained_stem": "sum"}, "pretrained_stem='sum' is not one of load, average, leave_out."),
    (ModelConfig, {"depths": (1, 2)}, "model.depths=(1, 2) and model.dims=() need one number for each stage."),
    (ModelConfig, {"depths": (1, 0), "dims": (4, 8)}, "model.depths and model.dims must be numbers above 0."),
    (ModelConfig, {"depths": (1, 1), "dims": (4, -8)}, "model.depths and model.dims must be numbers above 0."),
    (ModelConfig, {"stem_stride": 0}, "model.stem_stride must be at least 1, got 0."),
    (ModelConfig, {"decoder_dim": 0}, "model.decoder_dim must be at least 1, got 0."),
    (ModelConfig, {"decoder_depth": 0}, "model.decoder_depth must be at least 1, got 0."),
    (
        DataConfig,
        {"source": "mnist"},
        "data.source='mnist' is not digits, tfds:NAME, folder:PATH, shards:PATH or webd",
    ),
    (
        DataConfig,
        {"source": "tfds:"},
        "data.source='tfds:' is not digits, tfds:NAME, folder:PATH, shards:PATH or webd",
    ),
    (
        DataConfig,
        {"source": "digits:x"},
        "data.source='digits:x' is not digits, tfds:NAME, folder:PATH, shards:PATH or webd",
    ),
    (DataConfig, {"channels": 0}, "data.channels must be at least 1, got 0."),
    (
        DataConfig,
        {"channels": 2},
        "data.mean and data.std need 2 numbers each, one for each of data.channels, or data.",
    ),
    (DataConfig, {"mean": (0.5,)}, "data.mean and data.std need 3 numbers each, one for each of data.channels, or dat"),
    (DataConfig, {"mean": "most"}, "data.mean and data.std need 3 numbers each, one for each of data.channels, or dat"),
    (DataConfig, {"mean": "auto", "std": (1.0,)}, "data.mean and data.std need 3 numbers each, one for each of data"),
    (DataConfig, {"bands": (0, 1, 2)}, "data.bands counts channels from 1, got (0, 1, 2)."),
    (DataConfig, {"bands": (4, 2)}, "data.bands=(4, 2) takes 2 channels: set data.channels=2."),
    (DataConfig, {"display_bands": (1, 2, 4)}, "data.display_bands=(1, 2, 4) names a channel beyond data.channels=3."),
    (DataConfig, {"display_bands": (1, 2)}, "data.display_bands must name one channel, or three for colours."),
    (DataConfig, {"pages": "two"}, "data.pages='two' is not one of first, all."),
    (DataConfig, {"value_range": (5, 5)}, "data.value_range must be (low, high) with low < high, got (5.0, 5.0)."),
    (DataConfig, {"value_range": (5,)}, "data.value_range must be (low, high) with low < high, got (5.0,)."),
    (DataConfig, {"no_data": ("no",)}, "data.no_data: expected a number or nan, got 'no'."),
    (
        DataConfig,
        {"background": (0.5, 0.5)},
        "data.background must be one number in [0, 1], or one for each of data.chann",
    ),
    (
        DataConfig,
        {"background": (255,)},
        "data.background must be one number in [0, 1], or one for each of data.channels.",
    ),
    (DataConfig, {"std": (0.2, 0.0, 0.2)}, "data.std must be above 0."),
    (DataConfig, {"evaluation_view": "half"}, "data.evaluation_view='half' is not one of auto, centre, whole."),
    (DataConfig, {"evaluation_crop": 0.0}, "data.evaluation_crop must be in (0, 1]."),
    (DataConfig, {"evaluation_crop": 1.5}, "data.evaluation_crop must be in (0, 1]."),
    (DataConfig, {"validation_share": 1.0}, "data.validation_share must be in [0, 1)."),
    (DataConfig, {"test_share": -0.1}, "data.test_share must be in [0, 1)."),
    (
        DataConfig,
        {"validation_share": 0.5, "test_share": 0.5},
        "data.validation_share and data.test_share leave no images to train on.",
    ),
    (DataConfig, {"image_size": 0}, "data.image_size must be at least 1, got 0."),
    (DataConfig, {"image_size": (96, 0)}, "data.image_size must be at least 1, got (96, 0)."),
    (
        DataConfig,
        {"image_size": (96, 64, 3)},
        "data.image_size must be one number of pixels or (height, width), got (96,",
    ),
    (DataConfig, {"image_size": ()}, "data.image_size must be one number of pixels or (height, width), got ()."),
    (DataConfig, {"image_size": 96.5}, "data.image_size: expected a whole number, got 96.5."),
    (DataConfig, {"shuffle_buffer": 0}, "data.shuffle_buffer must be at least 1, got 0."),
    (PretrainConfig, {"pictures": -1}, "pretrain.pictures must be at least 0, got -1."),
    (FinetuneConfig, {"drop_path_rate": 1.0}, "finetune.drop_path_rate must be in [0, 1)."),
    (FinetuneConfig, {"dropout_rate": -0.1}, "finetune.dropout_rate must be in [0, 1)."),
    (FinetuneConfig, {"label_smoothing": 1.0}, "finetune.label_smoothing must be in [0, 1)."),
    (FinetuneConfig, {"ema_decay": 1.0}, "finetune.ema_decay must be in [0, 1)."),
    (FinetuneConfig, {"head_init_scale": -0.1}, "finetune.head_init_scale must be at least 0, got -0.1."),
    (FinetuneConfig, {"layer_decay": 0.0}, "finetune.layer_decay must be in (0, 1], got 0."),
    (FinetuneConfig, {"layer_decay": 1.1}, "finetune.layer_decay must be in (0, 1], got 1.1."),
    (FinetuneConfig, {"layer_decay_groups": "all"}, "finetune.layer_decay_groups='all' is not one of single, group."),
    (FinetuneConfig, {"class_weights": "equal"}, "finetune.class_weights='equal' is not one of none, balanced."),
    (
        FinetuneConfig,
        {"frozen_encoder": True, "drop_path_rate": 0.1},
        "finetune.frozen_encoder leaves nothing for finetune.drop_path_rate=0.1 to act on: add "
        "--config.finetune.drop_path_rate=0.",
    ),
    (
        FinetuneConfig,
        {"frozen_encoder": True, "layer_decay": 0.9},
        "finetune.frozen_encoder leaves nothing for finetune.layer_decay=0.9 to act on: add "
        "--config.finetune.layer_decay=1.",
    ),
    (FinetuneConfig, {"randaugment_magnitude": 10.5}, "finetune.randaugment_magnitude must be in [0, 10]."),
    (FinetuneConfig, {"randaugment_magnitude": -1.0}, "finetune.randaugment_magnitude must be in [0, 10]."),
    (FinetuneConfig, {"randaugment_noise": -0.1}, "finetune.randaugment_noise must be at least 0, got -0.1."),
    (FinetuneConfig, {"erasing_probability": 1.1}, "finetune.erasing_probability must be in [0, 1]."),
    (FinetuneConfig, {"mixup_alpha": -0.1}, "finetune.mixup_alpha must be at least 0, got -0.1."),
    (FinetuneConfig, {"cutmix_alpha": -0.1}, "finetune.cutmix_alpha must be at least 0, got -0.1."),
    (FinetuneConfig, {"mix_probability": -0.1}, "finetune.mix_probability must be in [0, 1]."),
    (FinetuneConfig, {"switch_probability": 2.0}, "finetune.switch_probability must be in [0, 1]."),
    *[
        (
            FinetuneConfig,
            {"color_jitter": strengths},
            "finetune.color_jitter must be (brightness, contrast, saturation, hue),",
        )
        for strengths in ((0.4, 0.4, 0.4), (), (0.4, -0.1, 0.4, 0.1), (0.4, 0.4, 0.4, 0.6))
    ],
    (
        FinetuneConfig,
        {"color_jitter": (0.4, 0.4, 0.4, 0.1), "randaugment_magnitude": 9.0},
        "finetune.color_jitter and finetune.randaugment_magnitude cannot be combined: set one of them to 0.",
    ),
    *[
        (Config, {"profile_steps": steps}, "profile_steps must be (first, last) with 1 <= first < last, such as 10,20,")
        for steps in ((10,), (20, 10), (10, 10), (0, 10), (1, 2, 3))
    ],
    (WandbConfig, {"mode": "on"}, "wandb.mode='on' is not one of disabled, offline, online."),
    (Config, {"precision": "half"}, "precision='half' is not one of auto, float32, mixed_bfloat16, mixed_float16."),
    (Config, {"distribution": "all"}, "distribution='all' is not one of auto, none, mirrored, multiworker."),
    (Config, {"seed": -1}, "seed must be at least 0, got -1."),
    (Config, {"logical_cpus": -1}, "logical_cpus must be at least 0, got -1."),
    (Config, {"evaluation_batch_size": -1}, "evaluation_batch_size must be at least 0, got -1."),
    (Config, {"log_every": 0}, "log_every must be at least 1, got 0."),
    (Config, {"checkpoint_every": -1}, "checkpoint_every must be at least 0, got -1."),
    (Config, {"checkpoint_minutes": -0.5}, "checkpoint_minutes must be at least 0, got -0.5."),
    (
        Config,
        {"checkpoint_every": 0},
        "checkpoint_every or checkpoint_minutes must be above 0: a run without checkpoints",
    ),
    (Config, {"keep_checkpoints": 0}, "keep_checkpoints must be at least 1, got 0."),
    *[
        (kind, values, message.replace("{}", kind.section))
        for kind in (PretrainConfig, FinetuneConfig)
        for values, message in TRAINING_ERRORS
    ],
]


@pytest.mark.parametrize(("kind", "values", "message"), ERRORS)
def test_a_wrong_value_is_refused_by_name(kind, values, message):
    kind()
    with pytest.raises(UserError, match=re.escape(message)):
        kind(**values)


@pytest.mark.parametrize(
    ("image_size", "message"),
    [
        (100, "data.image_size=100: An image of 100x100 cannot be cut into patches of 32x32 pixels; the nearest "
              "sizes that do are 96x96 and 128x128."),
        (20, "the nearest sizes that do are 32x32."),
        ((96, 100), "data.image_size=(96, 100): An image of 96x100 cannot be cut into patches of 32x32 pixels; the "
                    "nearest sizes that do are 96x96 and 96x128."),
    ],
)  # fmt: skip
def test_an_image_size_that_does_not_divide_names_the_nearest_sizes(image_size, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Config(data=DataConfig(image_size=image_size))


@pytest.mark.parametrize("mask_ratio", [-0.5, 0.0, 1.0, 1.5])
def test_a_mask_ratio_outside_0_and_1_is_refused(mask_ratio):
    message = f"pretrain.mask_ratio, the fraction of masked patches, must be in (0, 1), got {mask_ratio}."
    with pytest.raises(UserError, match=re.escape(message)):
        Config(pretrain=PretrainConfig(mask_ratio=mask_ratio))


@pytest.mark.parametrize(("image_size", "mask_ratio", "patches"), [(32, 0.5, 1), (64, 0.99, 4), (96, 0.9, 9)])
def test_a_mask_ratio_that_leaves_nothing_to_see_is_refused(image_size, mask_ratio, patches):
    with pytest.raises(UserError, match=f"pretrain.mask_ratio={mask_ratio} leaves 0 of {patches} patches visible"):
        Config(data=DataConfig(image_size=image_size), pretrain=PretrainConfig(mask_ratio=mask_ratio))


@pytest.mark.parametrize(
    ("model", "stages", "stride", "patches"),
    [
        (ModelConfig(), ((2, 2, 6, 2), (40, 80, 160, 320)), 32, 49),
        (ModelConfig(variant="tiny"), ((3, 3, 9, 3), (96, 192, 384, 768)), 32, 49),
        (ModelConfig(depths=(1, 2), dims=(4, 8), stem_stride=2), ((1, 2), (4, 8)), 4, 56 * 56),
        (ModelConfig(depths=(1,), dims=(4,), stem_stride=7), ((1,), (4,)), 7, 32 * 32),
    ],
)
def test_stages_and_patches_follow_from_the_model(model, stages, stride, patches):
    config = Config(model=model)
    assert config.model.stages == stages
    assert config.model.total_stride == stride
    assert config.num_patches == patches


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"sede": 1}, "sede"),
        ({"model": {"depth": 3}}, "model.depth"),
        ({"pretrain": {"epoch": 3, "labels": "all"}}, "pretrain.epoch, pretrain.labels"),
    ],
)
def test_an_unknown_field_is_refused_with_its_full_name(values, named):
    with pytest.raises(UserError, match=re.escape(f"Unknown configuration: {named}.")):
        Config.from_dict(values)


FULL = tiny_config(
    pretrain={"crop_scale": (0.3, 0.7), "mask_ratio": 0.5},
    finetune={"labels": "3 per class"},
    data={"source": "folder:some where/ä", "mean": (0.25,)},
    seed=7,
    pretrained="runs/x",
    wandb=WandbConfig(mode="offline", name="n"),
)


@pytest.mark.parametrize("config", [Config(), FULL], ids=["defaults", "changed"])
@pytest.mark.parametrize(
    "travel",
    [
        lambda config: config.to_dict(),
        lambda config: json.loads(json.dumps(config.to_dict())),
        lambda config: config.to_config_dict(),
        lambda config: config.to_config_dict().to_dict(),
    ],
    ids=["dict", "json", "config_dict", "plain config_dict"],
)
def test_a_configuration_survives_the_way_through_a_dictionary(config, travel):
    assert Config.from_dict(travel(config)) == config


def test_missing_fields_take_their_defaults():
    config = Config.from_dict({"pretrain": {"epochs": 3}})
    assert config == Config(pretrain=PretrainConfig(epochs=3))
    assert (config.pretrain.beta_2, config.finetune.beta_2) == (0.95, 0.999)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("pretrain.epochs", 7, 7),
        ("pretrain.warmup_epochs", 1, 1.0),
        ("pretrain.warmup_epochs", 0.5, 0.5),
        ("data.source", "tfds:mnist", "tfds:mnist"),
        ("data.flip", False, False),
        ("pretrain.crop_scale", (0.4, 0.9), (0.4, 0.9)),
        ("model.variant", "tiny", "tiny"),
    ],
)
def test_a_field_of_the_config_dict_can_be_overridden(field, value, expected):
    values = Config().to_config_dict()
    values.update_from_flattened_dict({field: value})
    config = Config.from_dict(values.to_dict())
    section, name = field.split(".")
    assert getattr(getattr(config, section), name) == expected
    assert config != Config()


@pytest.mark.parametrize(
    ("field", "value"),
    [("pretrain.epochs", "many"), ("pretrain.epochs", 1.5), ("data.source", 3), ("data.mean", 0.5), ("seed", "x")],
)
def test_a_field_of_the_config_dict_refuses_another_type(field, value):
    with pytest.raises(TypeError):
        Config().to_config_dict().update_from_flattened_dict({field: value})


@pytest.mark.parametrize(
    ("given", "kept", "size"),
    [(96, 96, (96, 96)), ((96,), 96, (96, 96)), ([96, 96], 96, (96, 96)), ((96, 160), (96, 160), (96, 160))],
)
def test_an_image_size_is_one_number_or_height_and_width(given, kept, size):
    config = Config(data=DataConfig(image_size=given))
    assert config.data.image_size == kept and config.data.size == size
    assert config.num_patches == size[0] * size[1] // 32**2
    assert Config.from_dict(config.to_config_dict().to_dict()) == config
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_values_of_the_data_are_kept_in_one_form():
    data = DataConfig(channels=5, mean=("auto",), no_data=(float("nan"), -1), bands=(5, 4, 3, 2, 1))
    assert (data.mean, data.std, data.no_data, data.shown) == ("auto", "auto", ("nan", -1.0), (0, 1, 2))
    config = Config(data=data)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert Config.from_dict(config.to_config_dict().to_dict()) == config
    assert DataConfig(channels=2, mean=(0.1, 0.2), std=(1, 1)).shown == (0,)
    assert DataConfig(display_bands=(3, 1, 2)).shown == (2, 0, 1)
    assert DataConfig(mean="auto", std=(0.5, 0.5, 0.5)).std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("changes", [{"randaugment_magnitude": 9.0}, {"color_jitter": (0.4, 0.4, 0.4, 0.1)}])
def test_augmentations_of_colour_refuse_other_numbers_of_channels(changes):
    (name,) = changes
    data = DataConfig(channels=5, mean="auto")
    with pytest.raises(UserError, match=f"finetune.{name} is for grey or colour images, not data.channels=5: leave it"):
        Config(data=data, finetune=FinetuneConfig(**changes))


def test_a_configuration_cannot_be_changed():
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.data.image_size = 64


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.mean", ("a",), "data.mean: expected a number, got 'a'."),
        ("data.mean", (float("nan"),), "data.mean: nan is not finite."),
        ("data.std", (1e400,), "data.std: inf is not finite."),
        ("model.depths", (1, 2.5, 3), "model.depths: expected a whole number, got 2.5."),
        ("model.dims", ((1, 2), 2, 3), "model.dims: expected a whole number, got (1, 2)."),
        ("pretrain.crop_scale", ("a", "b"), "pretrain.crop_scale: expected a number, got 'a'."),
        ("pretrain.clip_norm", float("inf"), "pretrain.clip_norm: inf is not finite."),
        ("seed", 2**32, "seed must be below 2**32, got 4294967296."),
        ("seed", "a", "seed: expected a whole number, got 'a'."),
        ("model", 3, "model must be a mapping of fields, got 3."),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_its_field(field, value, message):
    values = Config().to_dict()
    *sections, name = field.split(".")
    target = values[sections[0]] if sections else values
    target[name] = value
    with pytest.raises(UserError, match=re.escape(message)):
        Config.from_dict(values)


def test_a_whole_number_is_a_number_too():
    warmup = PretrainConfig(warmup_epochs=4).warmup_epochs
    assert warmup == 4.0 and isinstance(warmup, float)
