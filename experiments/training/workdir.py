"""The folder of a run: its recorded configuration, and reading and writing its files."""

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

import keras

from experiments.config import Config
from experiments.errors import UserError
from experiments.io import FAULTS, TEMPORARY, StorageError, as_path, is_url, reason, remove, replacing
from experiments.types import Metrics, Path

CONFIG, SUMMARY = "config.json", "summary.json"
PICTURES, SEGMENTATIONS = "reconstructions", "segmentations"  # folders
# Fields that do not change the results of a run, up to rounding.
FREE_FIELDS = (
    "pretrain.accumulation_steps",
    "finetune.accumulation_steps",
    "model.remat",
    "compile",
    "distribution",
    "logical_cpus",
    "evaluation_batch_size",
    "log_every",
    "checkpoint_every",
    "checkpoint_minutes",
    "keep_checkpoints",
    "profile_steps",
    "tensorboard",
    "wandb",
)


def check_writable(workdir: Path) -> None:
    """Raises UserError unless the folder of a run can be created and written to; does not create it.

    Args:
        workdir: its path; for a URL, only checks that it can be reached.
    """
    if is_url(workdir):
        try:
            workdir.exists()
        except FAULTS as error:
            raise UserError(f"--workdir={workdir} cannot be used: {reason(error)}.") from error
        return
    try:
        above = next(folder for folder in (workdir, *workdir.absolute().parents) if folder.exists())
    except OSError as error:
        raise UserError(f"--workdir={workdir} cannot be used: {reason(error)}.") from error
    if not above.is_dir():
        raise UserError(f"--workdir={workdir}: {above} is a file, not a folder.")
    if above != workdir and workdir.is_symlink():
        raise UserError(f"--workdir={workdir} is a broken link.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"--workdir={workdir}: {above} cannot be written to.")


def check_recorded(workdir: Path, config: Config, task: str, resume: str = "auto") -> list[str]:
    """Checks that a run may start or resume in a folder.

    Args:
        workdir: path of the folder.
        config: the `Config` of the run.
        task: `pretrain` or `finetune`.
        resume: `auto` resumes a run of the same configuration; `never` refuses a folder that holds a run; `anyway`
            resumes whatever the configuration was.

    Returns:
        Texts that describe the differences in configuration despite which the run resumes; empty without `anyway`.

    Raises:
        UserError: if the folder holds a run that must not be resumed, or one with a different configuration.
    """
    if not (workdir / CONFIG).exists():
        return []
    if resume == "never":
        raise UserError(f"{workdir} already holds a run, and --resume=never is set: use another --workdir.")
    before, old_config = _recorded(workdir)
    if before != task:
        raise UserError(f"{workdir} holds a {before} run: use another --workdir to {task}.")
    differences = _differences(old_config, config, task)
    if differences and resume != "anyway":
        more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise UserError(
            f"{workdir} holds a run with a different configuration ({'; '.join(differences[:5])}{more}): use another "
            "--workdir, or resume with the new configuration by --resume=anyway."
        )
    return differences


def finished_summary(workdir: Path) -> Metrics | None:
    """Returns the summary of a run that is complete, or None."""
    path = workdir / SUMMARY
    return read_json(path, "delete it, and the same command writes it again") if path.exists() else None


def record_config(workdir: Path, config: Config, task: str) -> None:
    """Makes the folder of a run, if it is missing, and writes `config.json`."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        folders = (folder for folder in (workdir, workdir / PICTURES, workdir / SEGMENTATIONS) if folder.exists())
        for stale in [path for folder in folders for path in folder.iterdir() if path.name.startswith(TEMPORARY)]:
            remove(stale)  # of a run that was killed
        remove(workdir / SUMMARY)  # of a complete run that is resumed with a changed configuration
    except FAULTS as error:
        raise StorageError(f"{workdir} cannot be written to: {reason(error)}.") from error
    record = {"task": task, "config": json.loads(json.dumps(config.to_dict()))}  # tuples become lists
    if not (workdir / CONFIG).exists() or read_json(workdir / CONFIG) != record:
        write_json(workdir / CONFIG, record)


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a model as a `.keras` file, atomically."""
    with replacing(path) as temporary:
        model.save(temporary)


def read_json(
    path: str | os.PathLike[str], remedy: str = "restore it from a copy, or delete it", *needed: str
) -> dict[str, Any]:
    """Returns the content of a JSON file, a dictionary.

    Args:
        path: of the file.
        remedy: what the user can do if it is damaged.
        *needed: keys that it has.

    Raises:
        UserError: if it is damaged.
    """
    try:
        content = json.loads(as_path(path).read_text(encoding="utf-8"))
    except (*FAULTS, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or any(key not in content for key in needed):
        raise UserError(f"{path} is damaged: {remedy}.")
    return content


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _recorded(workdir: Path) -> tuple[str, dict[str, Any]]:
    path, remedy = workdir / CONFIG, "use another --workdir"
    recorded = read_json(path, remedy, "task", "config")
    if not isinstance(recorded["config"], dict):
        raise UserError(f"{path} is damaged: {remedy}.")
    return recorded["task"], recorded["config"]


def _differences(old_config: dict[str, Any], config: Config, task: str) -> list[str]:
    with contextlib.suppress(UserError):  # its fields are compared as they are
        old_config = Config.from_dict(old_config).to_dict()  # a field that is newer than the run had its default
    plain = (json.loads(json.dumps(one)) for one in (old_config, config.to_dict()))  # tuples become lists
    old, new = (_relevant(one, task) for one in plain)
    for name, left_open in (("data.mean", "auto"), ("data.std", "auto"), ("data.no_data", [])):
        if new[name] == left_open:  # which the run found out when it began
            new[name] = old.get(name)
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    return [f"{name} was {old.get(name)!r}, now {new.get(name)!r}" for name in names]


def _relevant(config: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Returns `{dotted name: value}` of the fields that change the results of this task."""
    others = ("finetune", "segmentation") if task == "pretrain" else ("pretrain",)
    fields = flatten({name: value for name, value in config.items() if name not in (*FREE_FIELDS, *others)})
    return {name: value for name, value in fields.items() if name not in FREE_FIELDS}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dictionaries as one with dotted names, such as `pretrain.epochs`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat
