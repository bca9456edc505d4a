"""AdamW with rules."""

import keras

from experiments.optim.rules import rule_table
from experiments.optim.schedules import warmup_cosine


def learning_rate_schedule(training, plan):
    """Returns the learning rate of a run as a function of the step.

    Args:
        training: a `TrainingConfig`.
        plan: the `Plan` of the run.
    """
    return warmup_cosine(plan.peak_learning_rate, plan.total_steps, plan.warmup_steps, final=training.min_learning_rate)


def make_adamw(variables, training, plan):
    """Returns the optimizer of a run, built for its variables.

    Args:
        variables: trainable variables of the model.
        training: a `TrainingConfig`.
        plan: the `Plan` of the run.

    Returns:
        AdamW (on TensorFlow a `FusedAdamW`) whose decay leaves out what the rules leave out. It does not clip: the
        training step clips the gradient of the whole batch.
    """
    optimizer = _adamw_class()(
        learning_rate_schedule(training, plan),
        weight_decay=training.weight_decay,
        beta_1=training.beta_1,
        beta_2=training.beta_2,
        epsilon=1e-8,
    )
    spared = [variable for variable, row in zip(variables, rule_table(variables)) if not row.decays]
    optimizer.exclude_from_weight_decay(var_list=spared)
    optimizer.build(variables)
    return optimizer


def _adamw_class():
    if keras.backend.backend() != "tensorflow":
        return keras.optimizers.AdamW
    from experiments.optim.fused_adamw import FusedAdamW

    return FusedAdamW
