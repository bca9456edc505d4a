"""What a study may cost: by the speed of its own runs that are complete, before that by a guess."""

import statistics

from experiments.training.tracking import read_metrics

# Guesses for the preset `fashion_mnist_study` on two cores, until runs of the study are complete: images/s of training,
# and the seconds of a trial besides, for opening data, compiling and evaluation.
IMAGES_PER_SECOND = {"pretrain": 1000.0, "finetune": 850.0}
SECONDS_BESIDES = {"pretrain": 20.0, "finetune": 20.0, "test": 10.0, "probe": 90.0}


def estimate_lines(study, trials):
    """Returns a line for each trial, with its steps and its seconds, and a line for all of them.

    Args:
        study: the `Study`.
        trials: its trials, in their order.
    """
    speeds = {task: _measured(trials, task) or speed for task, speed in IMAGES_PER_SECOND.items()}
    lines, left = [], 0.0
    for trial in trials:
        seconds = trial.images / speeds.get(trial.task, 1.0) + SECONDS_BESIDES[trial.task]
        left += 0.0 if trial.is_complete else seconds
        steps = f"{trial.length[0]:,} steps" if trial.images else ""
        state = "complete" if trial.is_complete else f"{seconds:.0f} s"
        lines.append(f"  {trial.task:<9} {trial.name:<50} {steps:>12} {state:>10}")
    complete = sum(trial.is_complete for trial in trials)
    shown = ", ".join(f"{task} {speed:,.0f} images/s" for task, speed in speeds.items())
    more = f"; up to {study.budget.more_rates} more rates an arm if its best is at an edge" * bool(
        study.budget.more_rates
    )
    lines.append(f"{len(trials)} trials, {complete} complete; about {left / 60:.0f} minutes left at {shown}{more}")
    return lines


def _measured(trials, task):
    """Returns the median speed of the complete trials of a task; None without any."""
    speeds = [
        line["images_per_second"]
        for trial in trials
        if trial.task == task and trial.is_complete
        for line in read_metrics(trial.folder)
        if "images_per_second" in line
    ]
    return statistics.median(speeds) if speeds else None
