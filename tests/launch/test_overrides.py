"""Fields of the configuration set to anything at all: a valid configuration, or one line and exit code 2."""

import contextlib
import io
import sys

import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st

from experiments.config import Config
from launch import command
from tests.fuzz import fuzzed
from tests.launch.commands import PRESET

FIELDS = sorted(command._field_names(Config().to_dict()))
ODD = ("nan", "-inf", "None", "True", "()", "(1,)", "(1, 2", "[1, 2]", "{}", "1_0", "0x10", "'", "(" * 500)
SOURCES = ("digits", "tfds:", "folder:", "digits*0", "digits+digits*1", "folder:a*1+digits", "tfds:a+tfds:b*1")
TEXTS = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"[-+]?[0-9]{1,25}(\.[0-9]*)?(e[-+]?[0-9]{1,4})?", fullmatch=True),
    st.sampled_from(ODD + SOURCES),
    st.tuples(st.floats(), st.floats()).map(str),
)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    path = tmp_path_factory.mktemp("preset") / "preset.py"
    path.write_text(PRESET)
    return path


@fuzzed(40)
@given(overrides=st.lists(st.tuples(st.sampled_from(FIELDS), TEXTS), min_size=1, max_size=3))
def test_an_override_gives_a_valid_configuration_or_one_line(preset, overrides):
    values, made, errors = flags.FlagValues(), [], io.StringIO()
    command.define_run_flags(values)
    argv = ["pretrain", f"--config={preset}", *(f"--config.{name}={text}" for name, text in overrides)]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(errors):
        patch.setattr(sys, "argv", argv)
        try:
            command.run_command(lambda _: made.append(Config.from_dict(values.config.to_dict())), values)
        except SystemExit as ended:
            assert ended.code == 2 and not made
    if made:
        assert Config.from_dict(made[0].to_dict()) == made[0] and not errors.getvalue()
    else:
        assert errors.getvalue().startswith("error: ") and errors.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [("96", 96), ("96,160", (96, 160)), ("(96, 128)", (96, 128)), ("[64, 64]", 64)],
)
def test_an_image_size_is_given_as_one_number_or_two(preset, monkeypatch, text, size):
    values, made = flags.FlagValues(), []
    command.define_run_flags(values)
    monkeypatch.setattr(sys, "argv", ["pretrain", f"--config={preset}", f"--config.data.image_size={text}"])
    command.run_command(lambda _: made.append(Config.from_dict(values.config.to_dict())), values)
    assert made[0].data.image_size == size


def test_of_a_value_given_twice_the_last_one_counts(preset, monkeypatch):
    values, made = flags.FlagValues(), []
    command.define_run_flags(values)
    first = ["--config.model.dims=(8,)", "--config.model.depths=(1,)", "--config.seed=1"]
    last = ["--config.model.dims=(4, 8)", "--config.model.depths=(2, 1)", "--config.seed=2"]
    monkeypatch.setattr(sys, "argv", ["pretrain", f"--config={preset}", *first, *last])
    command.run_command(lambda _: made.append(Config.from_dict(values.config.to_dict())), values)
    assert made[0].model.stages == ((2, 1), (4, 8)) and made[0].seed == 2
