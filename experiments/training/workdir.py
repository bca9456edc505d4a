"""The folder of a run: which configuration it belongs to, and the files that others read."""

import json
import os
import pathlib

from convnext.port.files import TEMPORARY, replacing
from experiments.errors import UserError

CONFIG, SUMMARY = "config.json", "summary.json"
# Fields that change how a run is carried out, but not what comes of it.
FREE_FIELDS = ("distribution", "logical_cpus", "log_every", "checkpoint_every", "keep_checkpoints", "wandb")


def check_workdir(path, config, task, resume="auto"):
    """Checks that a run may use a folder.

    Args:
        path: of the folder; it may be missing.
        config: the `Config` of the run.
        task: `pretrain` or `finetune`.
        resume: `auto` goes on with a run that is there; `never` refuses a folder that holds one.

    Returns:
        The folder, a `pathlib.Path`.

    Raises:
        UserError: if the folder holds a run that must not go on, or one of another configuration.
    """
    workdir = pathlib.Path(path).expanduser()
    _check_writable(workdir)
    if (workdir / CONFIG).exists():
        if resume == "never":
            raise UserError(f"{workdir} holds a run already and --resume=never: name another --workdir.")
        _check_same(workdir, config, task)
    return workdir


def finished_summary(workdir):
    """Returns the summary of a run that is complete, or None."""
    path = workdir / SUMMARY
    return read_json(path, "delete it, and the run is finished once more") if path.exists() else None


def record_config(workdir, config, task):
    """Makes the folder of a run, if it is missing, and writes down what runs in it."""
    workdir.mkdir(parents=True, exist_ok=True)
    for stale in workdir.glob(f"{TEMPORARY}*"):  # of a run that was killed while it wrote
        stale.unlink()
    write_json(workdir / CONFIG, {"task": task, "config": config.to_dict()})


def save_model(model, path):
    """Saves a model as a `.keras` file, in one piece."""
    with replacing(path) as temporary:
        model.save(temporary)


def read_json(path, remedy="restore it from a copy, or delete it", *needed):
    """Returns the content of a JSON file, a dictionary.

    Args:
        path: of the file.
        remedy: what a person can do if it is damaged.
        *needed: keys that it has.

    Raises:
        UserError: if it is damaged.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or any(key not in content for key in needed):
        raise UserError(f"{path} is damaged: {remedy}.")
    return content


def write_json(path, value):
    """Writes a JSON file in one piece: a reader sees the old content or the new."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _check_writable(workdir):
    """Makes sure that the folder can be made and written to; makes none."""
    above = next(folder for folder in (workdir, *workdir.absolute().parents) if folder.exists())
    if not above.is_dir():
        raise UserError(f"--workdir={workdir}: {above} is a file, not a folder.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"--workdir={workdir}: {above} cannot be written to.")


def _recorded(workdir):
    path, remedy = workdir / CONFIG, "name another --workdir"
    recorded = read_json(path, remedy, "task", "config")
    if not isinstance(recorded["config"], dict):
        raise UserError(f"{path} is damaged: {remedy}.")
    return recorded["task"], recorded["config"]


def _check_same(workdir, config, task):
    before, old_config = _recorded(workdir)
    if before != task:
        raise UserError(f"{workdir} holds a {before} run: name another --workdir to {task}.")
    now = json.loads(json.dumps(config.to_dict()))  # tuples become lists
    old, new = _relevant(old_config, task), _relevant(now, task)
    differences = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if differences:
        shown = "; ".join(f"{name} was {old.get(name)!r}, now {new.get(name)!r}" for name in differences[:5])
        raise UserError(f"{workdir} holds a run of another configuration ({shown}): name another --workdir.")


def _relevant(config, task):
    """Returns `{dotted name: value}` of the fields that decide what comes of a run of this task."""
    other = "finetune" if task == "pretrain" else "pretrain"
    return _flatten({name: value for name, value in config.items() if name not in (*FREE_FIELDS, other)})


def _flatten(values, prefix=""):
    flat = {}
    for name, value in values.items():
        flat.update(_flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat
