"""The common part of all commands: flags, configuration, error messages and exit codes.

Exit codes: 0 done, or stopped by a signal with everything saved; 1 the run failed; 2 the command line or the
configuration is wrong; 130 ended by Ctrl-C, 143 by SIGTERM: training runs by the second signal, other commands by the
first.
"""

import contextlib
import difflib
import os
import pathlib
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import app, flags
from ml_collections import config_dict, config_flags

from experiments import presets
from experiments.config import IMAGE_SETTINGS, Config, parse_size
from experiments.errors import Interrupted, RunError, UserError
from experiments.types import Metrics

PRESETS = {path.stem: path for path in sorted(pathlib.Path(presets.__file__).parent.glob("[!_]*.py"))}
RESUME = ("auto", "never", "anyway")
NO_PRESET = f"--config is missing: give a preset, one of {', '.join(PRESETS)}, or the path of a file."


class PresetParser(flags.ArgumentParser):
    """Reads the value of `--config`: name of a preset in `experiments.presets`, or path of a file with `get_config`.

    The text after a colon is the argument of `get_config`, as in `imagenet_pretrain:tiny`.
    """

    def parse(self, argument: str) -> config_dict.ConfigDict:
        """Returns the `ConfigDict` of the preset, which accepts no new fields.

        Raises:
            UserError: if there is no such preset, or it gives no configuration.
        """
        name, *arguments = argument.split(":", 1)
        path = PRESETS.get(name) or pathlib.Path(name)
        if not os.path.isfile(path):
            raise UserError(f"There is no preset or file {name!r}: give a file, or one of {', '.join(PRESETS)}.")
        try:
            config = runpy.run_path(str(path))["get_config"](*arguments)
        except UserError:
            raise
        except Exception as error:  # a preset is the user's program and may raise anything
            raise UserError(f"The preset {path} cannot be used: {type(error).__name__}: {error}") from error
        if not isinstance(config, config_dict.ConfigDict):
            raise UserError(f"{path}: get_config must return a ConfigDict; end it with Config(...).to_config_dict().")
        return config.lock()

    def flag_type(self) -> str:
        return "preset"


def define_run_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of a command that trains: `--config`, `--workdir`, `--resume`."""
    define_config_flags("Output folder of the run; a run that is already in it is resumed.", values)
    resume = (
        "Whether to resume a run in the workdir: auto, if its configuration is the same; never; or anyway, with the "
        "new configuration."
    )
    flags.DEFINE_enum("resume", "auto", list(RESUME), resume, flag_values=values)


def define_config_flags(workdir: str | None = None, values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines `--config`, and `--workdir` with the help text `workdir`, unless that is None."""
    preset = f"Preset: one of {', '.join(PRESETS)}, or the path of a file. --config.FIELD=VALUE changes a field of it."
    config_flags.DEFINE_config_file("config", None, preset, flag_values=values)
    values["config"].parser = PresetParser()
    if workdir:
        flags.DEFINE_string("workdir", None, workdir, flag_values=values)


def use_preset_by_default(name: str) -> None:
    """Adds `--config=name` to a command line without it."""
    # A default of the flag would be read before errors are caught.
    if not any(word.lstrip("-").partition("=")[0] == "config" for word in sys.argv[1:]):
        sys.argv.insert(1, f"--config={name}")


def run_configuration() -> Config:
    """Returns the `Config` from the flags; raises UserError if --workdir is missing."""
    if flags.FLAGS.config is None:
        raise UserError(NO_PRESET)
    require_flags(workdir="runs/first")
    return Config.from_dict(flags.FLAGS.config.to_dict())


def define_image_flags() -> None:
    """Defines the flags that say how images are prepared for weights without a run."""
    settings = "Image preprocessing for weights that do not come from a run: as for the published weights of this name."
    flags.DEFINE_enum("image_preset", None, list(IMAGE_SETTINGS), settings)
    flags.DEFINE_string("image_size", "", "Size of the images in pixels: 224, or 96,160.")
    flags.DEFINE_list("mean", [], "Mean of each channel, in [0, 1].")
    flags.DEFINE_list("std", [], "Standard deviation of each channel.")
    flags.DEFINE_float("crop", None, "Fraction of the image that the centre crop keeps.")


def image_settings() -> dict[str, Any]:
    """Returns the values of the flags of `define_image_flags`, as fields of `DataConfig`."""
    values = flags.FLAGS
    settings = dict(IMAGE_SETTINGS[values.image_preset]) if values.image_preset else {}
    if values.image_size:
        settings["image_size"] = parse_size(values.image_size, "--image_size")
    for name in ("mean", "std"):
        if numbers := getattr(values, name):
            try:
                settings[name] = tuple(map(float, numbers))
            except ValueError as error:
                raise UserError(f"--{name}={','.join(numbers)}: give a number for each channel.") from error
    if values.crop is not None:
        settings["evaluation_crop"] = values.crop
    return settings


def require_flags(**examples: str) -> None:
    """Raises UserError unless each of these flags has a value; `examples` are values to show."""
    for name, example in examples.items():
        if not getattr(flags.FLAGS, name):
            raise UserError(f"--{name} is missing: add it, as in --{name}={example}.")


def writable_file(flag: str) -> pathlib.Path | None:
    """Returns the path that a flag names, or None; checks in advance that it can be written."""
    name = getattr(flags.FLAGS, flag)
    if not name:
        return None
    file = pathlib.Path(name)
    if file.is_dir() or not file.parent.is_dir():
        raise UserError(f"--{flag}={name} cannot be written: name a file in a folder that exists.")
    return file


def run_training(run: Callable[[Config, str, str], Metrics | None]) -> None:
    """Runs a training command, and ends the process.

    Args:
        run: function of configuration, workdir and resume.
    """

    from experiments.data.sources.tfds_damage import naming_damage  # TensorFlow, which other commands may not need

    def main(_: list[str]) -> None:
        config = run_configuration()
        with naming_damage(config.data):
            summary = run(config, flags.FLAGS.workdir, flags.FLAGS.resume)
        if summary is None:  # a worker; the chief alone prints
            return
        with contextlib.suppress(OSError):  # the reader of the output may be gone; the run is complete
            print(f"done: {flags.FLAGS.workdir}")
            width = max(20, *map(len, summary))
            for name, value in summary.items():
                print(f"  {name:<{width}} {value:.4g}" if isinstance(value, float) else f"  {name:<{width}} {value}")

    run_command(main)


def run_command(
    main: Callable[[list[str]], None], values: flags.FlagValues = flags.FLAGS, takes_arguments: bool = False
) -> None:
    """Runs a command; on a user's mistake, exits with one line and an exit code.

    Args:
        main: function of the positional arguments.
        values: the flags.
        takes_arguments: whether there may be positional arguments, before, between and after the flags.
    """
    # So that lines appear in a log file at once.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    values.set_gnu_getopt(takes_arguments)
    try:
        _, *arguments = _parse_flags(_last_of_each(sys.argv), values)
        if arguments and not takes_arguments:
            raise UserError(f"unexpected argument {arguments[0]!r}: flags begin with --.")
        main(arguments)
    except UserError as error:
        sys.exit(_log(error, 2))
    except RunError as error:
        sys.exit(_log(error, 1))
    except Interrupted as error:
        sys.exit(_log(error, 0))
    except KeyboardInterrupt:
        sys.exit(_log("interrupted", 130))
    except BrokenPipeError:  # the reader of the pipe has exited, as `head` does
        sys.exit(1)
    finally:
        _flush_or_drop()


def _flush_or_drop() -> None:
    """Discards output that cannot be written: Python would try again at its exit, and print an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _log(error: BaseException | str, code: int) -> int:
    with contextlib.suppress(OSError):  # the exit code reports the failure too
        print(f"{'error: ' if code else ''}{' '.join(str(error).split())}", file=sys.stderr)
    return code


def _last_of_each(argv: Sequence[str]) -> list[str]:
    """Keeps the last value of each configuration flag: `config_flags` would concatenate the tuples of all values."""
    kept, seen = [], set()
    for word in reversed(argv):
        name, is_value, _ = word.lstrip("-").partition("=")
        if word.startswith("-") and name.startswith("config.") and is_value:
            if name in seen:
                continue
            seen.add(name)
        kept.append(word)
    return kept[::-1]


def _parse_flags(argv: Sequence[str], values: flags.FlagValues) -> list[str]:
    app.define_help_flags()
    try:
        return values(argv)
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config."):
            raise UserError(NO_PRESET) from error
        hint = _nearest(error.flagname, _own_flags(values))
        raise UserError(f"There is no flag --{error.flagname}.{hint}") from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    except (AttributeError, KeyError) as error:
        raise UserError(_unknown_field(argv)) from error
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        # The parsers of numbers and tuples raise these for unexpected texts.
        raise UserError(f"A flag has an invalid value: {type(error).__name__}: {error}") from error


def _unknown_field(argv: Iterable[str]) -> str:
    known = list(_field_names(Config().to_dict()))
    words = [word.lstrip("-").partition("=")[0] for word in argv]
    unknown = [word.removeprefix("config.") for word in words if word.startswith("config.")]
    unknown = [name for name in unknown if name not in known]
    if not unknown:
        return "The configuration has no such field."
    return f"The configuration has no field {unknown[0]}.{_nearest(unknown[0], known)}"


def _field_names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from _field_names(value, f"{prefix}{name}.")


def _own_flags(values: flags.FlagValues) -> list[str]:
    """Returns the names of the flags that are not of absl itself."""
    modules = values.flags_by_module_dict().items()
    return [flag.name for module, defined in modules if not module.startswith("absl") for flag in defined]


def _nearest(name: str, known: Sequence[str]) -> str:
    """Returns a hint with the known names most similar to `name`, as a whole or in their last part."""
    last_part = [other for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]]
    nearest = last_part or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {' or '.join(nearest[:3])}?" if nearest else ""
