"""What the README says works: its Python runs, and its flags, presets and commands exist."""

import pathlib
import re

from experiments.config import Config

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def field_names(values, prefix=""):
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from field_names(value, f"{prefix}{name}.")


def test_python_blocks_run():
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
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
