"""The learning rate over a run."""

import keras


def warmup_cosine(peak, total_steps, warmup_steps=0, final=0.0):
    """Returns the schedule of the paper: a linear rise from 0, then half a cosine, step by step.

    Args:
        peak: rate at the end of the warmup.
        total_steps: steps of the run.
        warmup_steps: steps of the rise.
        final: rate at the end of the run.
    """
    if warmup_steps == 0:
        return keras.optimizers.schedules.CosineDecay(peak, total_steps, alpha=final / peak)
    return keras.optimizers.schedules.CosineDecay(
        0.0, total_steps - warmup_steps, alpha=final / peak, warmup_target=peak, warmup_steps=warmup_steps
    )
