"""What the README says works: its Python runs, and its flags, presets and commands exist."""

import ast
import importlib.util
import pathlib
import re

import pytest

from convnext import ConvNeXtV2
from experiments.config import Config
from tests.launch.commands import run_forked

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CONVERSIONS = re.findall(r"^python -m launch\.convert (.*)$", README, re.MULTILINE)
RUN = "runs/own"


def field_names(values, prefix=""):
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from field_names(value, f"{prefix}{name}.")


def missing_modules(code):
    """Returns the modules that a block imports and that are not installed."""
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = [alias.name if isinstance(node, ast.Import) else node.module for node in imports for alias in node.names]
    return [name for name in names if importlib.util.find_spec(name.split(".")[0]) is None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a finished run in it, in which the README's conversions have been done."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / RUN).mkdir(parents=True)
    ConvNeXtV2.from_variant("atto", input_shape=(96, 96, 3), include_top=False).save(folder / RUN / "encoder.keras")
    commands = {flags: ("convert", in_folder(flags, folder)) for flags in CONVERSIONS if ".pt" not in flags}
    assert len(commands) == 4
    for flags, outcome in run_forked(commands).items():
        assert outcome.code == 0, (flags, outcome.errors)
    return folder


def in_folder(flags, folder):
    """The flags of a conversion, with paths in a folder."""
    return [re.sub(r"^--(source|output)=", rf"--\1={folder}/", flag) for flag in flags.split()]


def test_there_is_python_and_there_are_conversions():
    assert len(PYTHON) >= 4 and len(CONVERSIONS) >= 5


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_python_blocks_run(block, folder, monkeypatch):
    if missing := missing_modules(block):
        pytest.skip(f"{', '.join(missing)} is not installed")
    monkeypatch.chdir(folder)
    exec(compile(block, "README.md", "exec"), {})


def test_flags_are_fields_of_the_configuration():
    named = set(re.findall(r"--config\.([a-z_0-9.]*[a-z_0-9])", README))
    assert len(named) > 10
    assert named - set(field_names(Config().to_dict())) == set()


def test_presets_and_commands_exist():
    presets = set(re.findall(r"experiments/presets/\w+\.py", README))
    commands = set(re.findall(r"python -m launch\.(\w+)", README))
    assert presets and commands
    assert [path for path in presets if not (ROOT / path).is_file()] == []
    assert [name for name in commands if not (ROOT / "launch" / f"{name}.py").is_file()] == []
