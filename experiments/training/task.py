"""A whole run: the workers it takes, its folder, and what ends it early."""

import contextlib

from experiments.errors import UserError
from experiments.io import FAULTS, as_path, reason
from experiments.training.checkpoints import check_pretrained
from experiments.training.interruption import stopping_at_once
from experiments.training.lock import only_run_in
from experiments.training.omission import unless_unheard
from experiments.training.wandb_run import check_wandb
from experiments.training.workdir import CONFIG, check_recorded, check_writable, finished_summary
from experiments.training.workers import on_workers


def run_task(config, task, workdir, resume, say, work):
    """Carries a whole run out, or this process's part in it.

    Args:
        config: the `Config`.
        task: `pretrain` or `finetune`.
        workdir: path or URL of the folder that the run leaves its results in.
        resume: `auto`, `never` or `anyway`, see `check_recorded`.
        say: function that takes a line for the user.
        work: function of the path of the workdir, the `Workers` and `say` that returns the summary.

    Returns:
        What `work` returns, or the summary of a run that is complete already; of several workers the chief's alone.

    Raises:
        UserError, RunError, Interrupted: see `experiments.errors`.
    """

    def on_worker(workers, say):
        with _entered(workdir, config, task, resume, workers, say) as (folder, summary):
            return summary or work(folder, workers, say)

    with stopping_at_once():  # outside of the steps, which have their own way
        return on_workers(config, task, workdir, unless_unheard(say), on_worker)


@contextlib.contextmanager
def _entered(path, config, task, resume, workers, say):
    """Context of a whole run that no other run uses the folder of.

    Before anything is made, it checks that the run may use the folder and finds what it starts from.

    Yields:
        `(workdir, summary)`: the path of the folder, and what a run that is complete there came to, or None.

    Raises:
        UserError: if the folder or the pretrained weights cannot be used.
    """
    workdir = as_path(path)
    check_writable(workdir)
    locked = only_run_in(workdir, say) if workers.is_chief else contextlib.nullcontext()
    with locked:
        try:
            summary = _summary_or_start(workdir, config, task, resume, workers, say)
        except FAULTS as error:
            raise UserError(f"--workdir={workdir} cannot be used: {reason(error)}.") from error
        yield workdir, summary


def _summary_or_start(workdir, config, task, resume, workers, say):
    """Returns the summary of a run that is complete; else None, after a look at what the run will need."""
    differences = check_recorded(workdir, config, task, resume)
    for difference in differences:
        say(f"goes on with another configuration: {difference}")
    summary = None if differences else finished_summary(workdir)
    if summary:
        say(f"The run in {workdir} is complete.")
        return summary
    check_pretrained(config.pretrained, workdir)
    if workers.is_chief and not (workdir / CONFIG).exists():  # what has begun is not stopped by wandb
        check_wandb(config.wandb.mode)
    return None
