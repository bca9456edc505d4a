"""Every preset gives a configuration, and says how it is run."""

import functools
import importlib.util
import operator
import pathlib
import re

import pytest

from experiments import presets
from experiments.config import Config, DataConfig

FILES = sorted(path for path in pathlib.Path(presets.__file__).parent.glob("*.py") if path.stem != "__init__")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def preset(request):
    return request.param


def test_the_digits_need_no_download():
    (path,) = [path for path in FILES if path.stem == "digits"]
    assert Config.from_dict(load(path).get_config().to_dict()).data.source == "digits"


def test_a_preset_is_a_valid_configuration_of_its_own(preset):
    config = Config.from_dict(load(preset).get_config().to_dict())
    assert config != Config()
    assert config.data != DataConfig()
    assert config.num_patches >= 4


def test_the_docstring_of_a_preset_has_its_command(preset):
    commands = load(preset).__doc__.replace("\\\n", " ").splitlines()
    (command,) = [line.split() for line in commands if "launch.pretrain" in line]
    assert command[:3] == ["python", "-m", "launch.pretrain"]
    assert f"--config=experiments/presets/{preset.name}" in command
    assert any(word.startswith("--workdir=") for word in command)


def test_the_overrides_in_the_docstring_of_a_preset_exist(preset):
    module = load(preset)
    known = module.get_config()
    for name in re.findall(r"--config\.([\w.]+)", module.__doc__):
        functools.reduce(operator.getitem, name.split("."), known)  # raises for an unknown name
