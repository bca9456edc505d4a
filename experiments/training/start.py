"""What a run starts from: its own checkpoint, pretrained weights, or random weights."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from convnext.backbone import ConvNeXt
from convnext.weights.loader import PretrainedError, find_weights, load_pretrained
from experiments.config import Config
from experiments.errors import UserError
from experiments.io import FAULTS, local_copy, reason
from experiments.training.checkpoint import CheckpointFiles, Checkpoints
from experiments.training.distributed.workers import Workers
from experiments.training.wandb_logger import check_wandb
from experiments.training.workdir import CONFIG, check_recorded, finished_summary
from experiments.types import Log, Path


def check_start(
    workdir: Path, config: Config, task_name: str, resume: str, workers: Workers, log: Log
) -> dict[str, Any] | None:
    """Checks that a run can start or resume; returns the summary of a complete one, otherwise None.

    Args:
        workdir: path or URL of the run's folder.
        config: the `Config`.
        task_name: `pretrain` or `finetune`.
        resume: see `check_recorded`.
        workers: the `Workers`.
        log: function that takes a line for the user.

    Raises:
        UserError: if it cannot.
    """
    try:
        differences = check_recorded(workdir, config, task_name, resume)
        for difference in differences:
            log(f"resuming with a changed configuration: {difference}")
        summary = None if differences else finished_summary(workdir)
        if summary:
            log(f"The run in {workdir} is complete.")
            return summary
        check_pretrained(config.pretrained, workdir)
        if workers.is_chief and not (workdir / CONFIG).exists():  # wandb never stops a run that has begun
            check_wandb(config.wandb.mode)
    except FAULTS as error:
        raise UserError(f"--workdir={workdir} cannot be used: {reason(error)}.") from error
    return None


def check_pretrained(pretrained: str | os.PathLike[str], workdir: Path) -> None:
    """Raises UserError if a run without a checkpoint is to start from pretrained weights that do not exist.

    Args:
        pretrained: path or URL of a run's workdir or of a file; empty for none.
        workdir: of the run.
    """
    if not pretrained or CheckpointFiles(workdir).complete():
        return
    with _pretrained_file(pretrained) as path:
        find_weights(path)


def choose_start(
    checkpoints: Checkpoints,
    encoder: ConvNeXt,
    pretrained: str | os.PathLike[str],
    log: Log,
    pretrained_stem: str = "load",
) -> int:
    """Decides what a run starts from:

    1. the newest checkpoint in its own workdir,
    2. the weights that `pretrained` names,
    3. random weights.

    Args:
        checkpoints: the `Checkpoints` of the run.
        encoder: the `ConvNeXt` that pretrained weights are for.
        pretrained: path or URL of a run's workdir or of a file; empty for none.
        log: function that takes a line for the user.
        pretrained_stem: as `convnext.load_pretrained` takes it.

    Returns:
        The number of steps that are done.

    Raises:
        UserError: if the checkpoint or the pretrained weights do not fit the model.
        RunError: if there are checkpoints and none can be read.
    """
    step, notes = checkpoints.restore()
    for note in notes:
        log(note)
    if step:
        log(f"  starts from   its own checkpoint of step {step:,}")
    elif pretrained:
        with _pretrained_file(pretrained) as path:
            report = load_pretrained(encoder, path, pretrained_stem)
            log(f"  starts from   {str(report).replace(str(path), str(pretrained))}")
    else:
        log("  starts from   random weights")
    return step


@contextlib.contextmanager
def _pretrained_file(pretrained: str | os.PathLike[str]) -> Iterator[str | os.PathLike[str]]:
    """Yields a local path of pretrained weights; any error in them is a UserError."""
    try:
        with local_copy(pretrained) as path:
            yield path
    except PretrainedError as error:
        raise UserError(f"pretrained={pretrained}: {error}") from error
    except tf.errors.OpError as error:
        raise UserError(f"pretrained={pretrained} cannot be read: {reason(error)}.") from error
