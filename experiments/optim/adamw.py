"""AdamW with rules."""

import keras

from experiments.optim.layerwise_adamw import LayerwiseAdamW
from experiments.optim.rules import rule_table
from experiments.optim.schedules import warmup_cosine


def learning_rate_schedule(training, plan):
    """Returns the learning rate of a run as a function of the step.

    Args:
        training: a `TrainingConfig`.
        plan: the `Plan` of the run.
    """
    return warmup_cosine(plan.peak_learning_rate, plan.total_steps, plan.warmup_steps, final=training.min_learning_rate)


def make_adamw(variables, training, plan, layer_decay=None):
    """Returns the optimizer of a run, built for its variables.

    Args:
        variables: trainable variables of the model.
        training: a `TrainingConfig`.
        plan: the `Plan` of the run.
        layer_decay: a `LayerDecay`; None for one rate for all.

    Returns:
        AdamW (on TensorFlow a `FusedAdamW`) with the rates and the decay that the rules give each variable. It does
        not clip: the training step clips the gradient of the whole batch.
    """
    rows = rule_table(variables, layer_decay=layer_decay)
    schedule = learning_rate_schedule(training, plan)
    moments = {"beta_1": training.beta_1, "beta_2": training.beta_2, "epsilon": 1e-8}
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if on_tensorflow or any(row.rate_factor != 1.0 for row in rows):
        decays = [training.weight_decay if row.decays else 0.0 for row in rows]
        factors = [row.rate_factor for row in rows]
        optimizer = _layerwise_class(on_tensorflow)(schedule, factors, decays, **moments)
    else:
        # What Keras makes of it on PyTorch updates all variables at once.
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=training.weight_decay, **moments)
        spared = [variable for variable, row in zip(variables, rows) if not row.decays]
        optimizer.exclude_from_weight_decay(var_list=spared)
    optimizer.build(variables)
    return optimizer


def _layerwise_class(on_tensorflow):
    if not on_tensorflow:
        return LayerwiseAdamW
    from experiments.optim.fused_adamw import FusedAdamW

    return FusedAdamW
