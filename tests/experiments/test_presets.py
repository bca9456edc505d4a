"""Every preset gives a configuration and says how it is run; those of the paper have its numbers."""

import dataclasses
import functools
import importlib.util
import inspect
import operator
import pathlib
import re

import pytest
import tensorflow_datasets as tfds

from experiments import presets
from experiments.config import Config, DataConfig
from experiments.data.sources import open_source
from experiments.errors import UserError
from experiments.models import make_classifier, make_fcmae
from experiments.training.schedule import Schedule
from tests.experiments.images import encode, gradient, write
from tests.small_models import no_values

FILES = sorted(path for path in pathlib.Path(presets.__file__).parent.glob("*.py") if path.stem != "__init__")
IMAGENET = 1281167  # training images

# The published sizes: blocks and channels of the stages (the paper, appendix A).
STAGES = {
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
    "huge": ((3, 3, 27, 3), (352, 704, 1408, 2816)),
}
# The paper's table of fine-tuning, a row a line, in the order of the sizes; the published top-1 in percent.
FINETUNING = {
    "base_learning_rate": (2e-4, 2e-4, 2e-4, 2e-4, 8e-4, 6.25e-4, 6.25e-4, 1.25e-3),
    "epochs": (600, 600, 600, 600, 300, 100, 100, 50),
    "warmup_epochs": (0, 0, 0, 0, 40, 20, 20, 10),
    "layer_decay": (0.9, 0.9, 0.9, 0.9, 0.9, 0.6, 0.6, 0.75),
    "layer_decay_groups": ("single",) * 5 + ("group",) * 3,
    "weight_decay": (0.3, 0.05, 0.3, 0.3, 0.05, 0.05, 0.05, 0.05),
    "drop_path_rate": (0.1, 0.0, 0.0, 0.1, 0.2, 0.1, 0.2, 0.3),
    "mixup_alpha": (0.0, 0.3, 0.3, 0.5, 0.8, 0.8, 0.8, 0.8),
    "cutmix_alpha": (0.0, 0.3, 0.3, 0.5, 1.0, 1.0, 1.0, 1.0),
    "label_smoothing": (0.2, 0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1),
}
TOP1 = (76.7, 78.5, 80.3, 81.9, 83.0, 84.9, 85.8, 86.3)
PEAK = (8e-4, 8e-4, 8e-4, 8e-4, 3.2e-3, 2.5e-3, 2.5e-3, 5e-3)


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config_of(path, size=""):
    """The `Config` of a preset; of one for many sizes, that of the size, by itself the smallest."""
    get_config = load(path).get_config
    arguments = (size or "atto",) if inspect.signature(get_config).parameters else ()
    return Config.from_dict(get_config(*arguments).to_dict())


def file_of(stem):
    (path,) = [path for path in FILES if path.stem == stem]
    return path


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def preset(request):
    return request.param


def test_the_digits_need_no_download():
    assert config_of(file_of("digits")).data.source == "digits"


def test_a_preset_is_a_valid_configuration_of_its_own(preset):
    config = config_of(preset)
    assert config != Config()
    assert config.data != DataConfig()
    assert config.num_patches >= 4


def test_a_preset_builds_its_models(preset):
    config = config_of(preset)
    with no_values():
        fcmae = make_fcmae(config)
    size = config.data.image_size
    assert fcmae.backbone.image_shape == (size, size, config.data.channels)
    assert fcmae.num_patches == config.num_patches and fcmae.num_visible >= 1
    smallest = dataclasses.replace(config.model, depths=(1, 1), dims=(4, 8))
    classifier = make_classifier(dataclasses.replace(config, model=smallest), 10)
    assert classifier.drop_path_rate == config.finetune.drop_path_rate


def commands_in(docstring, name):
    """The words of each `python -m launch.NAME` in a docstring."""
    lines = docstring.replace("\\\n", " ").splitlines()
    return [line.split() for line in lines if f"python -m launch.{name} " in line]


def test_the_docstring_of_a_preset_has_its_command(preset):
    docstring = load(preset).__doc__
    needed = {"imagenet_finetune": ("finetune",), "imagenet_pretrain": ("pretrain",)}
    for name in needed.get(preset.stem, ("pretrain", "finetune")):
        (command,) = commands_in(docstring, name)
        assert command[:3] == ["python", "-m", f"launch.{name}"]
        (named,) = [word for word in command if word.startswith("--config=")]
        assert named.partition(":")[0] == f"--config={preset.stem}"
        assert any(word.startswith("--workdir=") for word in command)


def test_the_docstring_of_a_preset_says_what_to_expect_and_what_it_costs(preset):
    docstring = load(preset).__doc__
    assert re.search(r"^Expected\b", docstring, re.MULTILINE)
    assert re.search(r"\bcost\b", docstring, re.IGNORECASE)


def test_the_overrides_in_the_docstring_of_a_preset_exist(preset):
    known = config_of(preset).to_dict()
    for name in re.findall(r"--config\.([\w.]+)", load(preset).__doc__):
        functools.reduce(operator.getitem, name.split("."), known)  # raises for an unknown name


def test_the_data_set_of_a_preset_exists(preset):
    data = config_of(preset).data
    kind, _, name = data.source.partition(":")
    if kind == "tfds":
        name, _, variety = name.partition("/")
        builder = tfds.builder_cls(name)
        varieties = [config.name for config in builder.BUILDER_CONFIGS] or [""]
        assert variety in varieties
        for command in commands_in(load(preset).__doc__, "prepare"):
            assert f"--source={data.source}" in command


def test_rates_are_those_of_the_batch(preset):
    config = config_of(preset)
    for training in (config.pretrain, config.finetune):
        plan = Schedule.of(training, IMAGENET)
        assert plan.peak_learning_rate == pytest.approx(training.base_learning_rate * training.batch_size / 256)
        assert plan.warmup_steps < plan.total_steps


@pytest.mark.parametrize("stem", ["cifar10", "stl10", "imagenette"])
def test_small_data_sets_are_fine_tuned_at_the_peak_rate_of_atto(stem):
    config = config_of(file_of(stem))
    finetune = config.finetune
    assert Schedule.of(finetune, 10000).peak_learning_rate == pytest.approx(8e-4)
    assert (finetune.weight_decay, finetune.layer_decay, finetune.label_smoothing) == (0.3, 0.9, 0.2)
    assert config.pretrain.probe_every > 0


def test_small_images_are_padded_and_cropped_and_stl10_pretrains_without_labels():
    assert config_of(file_of("cifar10")).finetune.crop == "padded"
    assert config_of(file_of("cifar10")).pretrain.mask_ratio == 0.75
    assert config_of(file_of("stl10")).data.pretrain_split == "unlabelled"


# The paper's.


@pytest.mark.parametrize("size", STAGES)
def test_pretraining_on_imagenet_is_that_of_the_paper(size):
    config = config_of(file_of("imagenet_pretrain"), size)
    pretrain = config.pretrain
    assert config.model.stages == STAGES[size] and config.data.image_size == 224
    assert (pretrain.batch_size, pretrain.base_learning_rate, pretrain.epochs) == (4096, 1.5e-4, 1600)
    assert (pretrain.warmup_epochs, pretrain.weight_decay) == (40, 0.05)
    assert (pretrain.beta_1, pretrain.beta_2, pretrain.mask_ratio) == (0.9, 0.95, 0.6)
    assert (pretrain.crop, pretrain.crop_scale, config.data.flip) == ("auto", (0.2, 1.0), True)
    assert (config.model.decoder_dim, config.model.decoder_depth) == (512, 1)
    assert (pretrain.accumulation_steps, pretrain.probe_every, config.data.validation_share) == (1, 0, 0)
    plan = Schedule.of(pretrain, IMAGENET)
    assert plan.peak_learning_rate == pytest.approx(2.4e-3)
    assert (plan.steps_per_epoch, plan.total_steps, plan.warmup_steps) == (312, 1600 * 312, 40 * 312)


@pytest.mark.parametrize(("i", "size"), enumerate(STAGES))
def test_fine_tuning_on_imagenet_is_that_of_the_paper(i, size):
    config = config_of(file_of("imagenet_finetune"), size)
    finetune = config.finetune
    assert config.model.stages == STAGES[size] and config.data.image_size == 224
    assert {name: getattr(finetune, name) for name in FINETUNING} == {name: row[i] for name, row in FINETUNING.items()}
    assert (finetune.batch_size, finetune.accumulation_steps, finetune.labels) == (1024, 1, "all")
    assert (finetune.randaugment_magnitude, finetune.randaugment_noise, finetune.erasing_probability) == (9, 0.5, 0.25)
    assert (finetune.ema_decay, finetune.head_init_scale) == (0.9999, 0.001)
    assert (finetune.beta_1, finetune.beta_2, finetune.min_learning_rate) == (0.9, 0.999, 1e-6)
    assert (config.data.test_split, config.data.validation_share) == ("validation", 0)
    assert Schedule.of(finetune, IMAGENET).peak_learning_rate == pytest.approx(PEAK[i])


@pytest.mark.parametrize("stem", ["imagenet_pretrain", "imagenet_finetune"])
def test_of_imagenet_in_a_folder_all_of_train_is_trained_on_and_val_is_for_validation(stem, tmp_path):
    data = config_of(file_of(stem)).data
    for i in range(20):
        write(tmp_path / ("val" if i < 8 else "train") / f"n{i % 2}" / f"{i}.png", encode(gradient(8, 8)))
    source = open_source(dataclasses.replace(data, source=f"folder:{tmp_path}", test_split=""))
    assert source.split("train").num_examples == 12 and source.split("validation").num_examples == 8
    assert not source.get("test")
    assert data.shuffle_buffer == 10000


def test_the_docstring_has_the_published_figures_as_published():
    docstring = " ".join(load(file_of("imagenet_finetune")).__doc__.split())
    assert "published, not measured here" in docstring
    assert ", ".join(f"{size} {top1}" for size, top1 in zip(STAGES, TOP1)) in docstring


@pytest.mark.parametrize("stem", ["imagenet_pretrain", "imagenet_finetune"])
@pytest.mark.parametrize(("size", "message"), [("", "it needs a size"), ("small", "'small' is not one of its sizes")])
def test_a_size_that_is_not_published_is_refused_with_the_list(stem, size, message):
    with pytest.raises(UserError, match=f"^{stem}: {message}; name one of {', '.join(STAGES)}, such as"):
        load(file_of(stem)).get_config(*([size] if size else []))
