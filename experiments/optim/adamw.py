"""AdamW with per-variable rates and decay, and its learning rate schedule."""

import keras
from keras import ops


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


class LayerwiseAdamW(keras.optimizers.Adam):
    """AdamW whose learning rate is multiplied by a factor for each variable.

    As in PyTorch, where a group of parameters has a rate of its own, the factor acts on both the step and the decoupled
    decay. `keras.optimizers.AdamW` has one rate for all.

    Args:
        learning_rate: rate or schedule.
        rate_factors: factor of each variable, in the order in which the optimizer is built.
        decays: weight decay of each variable, 0 for none.
        **arguments: of `keras.optimizers.Adam`.
    """

    def __init__(self, learning_rate, rate_factors, decays, **arguments):
        super().__init__(learning_rate, **arguments)
        self._rate_factors = tuple(rate_factors)
        self._decays = tuple(decays)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        factor, decay = self._rate_factors[index], self._decays[index]
        rate = learning_rate if factor == 1.0 else learning_rate * factor
        if decay:
            self.assign(variable, variable * (1.0 - ops.cast(rate * decay, variable.dtype)))
        self.adam_step(gradient, variable, rate, index)

    def get_config(self):
        config = {**super().get_config(), "rate_factors": self._rate_factors, "decays": self._decays}
        del config["weight_decay"]  # each variable has its own
        return config

    def adam_step(self, gradient, variable, rate, index):
        """Does the step of Adam, for the `index`-th variable."""
        super().update_step(gradient, variable, rate)


def learning_rate_schedule(training, schedule):
    """Returns the learning rate of a run as a function of the step.

    Args:
        training: a `TrainingConfig`.
        schedule: the `Schedule` of the run.
    """
    return warmup_cosine(
        schedule.peak_learning_rate, schedule.total_steps, schedule.warmup_steps, final=training.min_learning_rate
    )


def make_adamw(variables, training, schedule, rules):
    """Returns the optimizer of a run, built for its variables.

    Args:
        variables: trainable variables of the model.
        training: a `TrainingConfig`.
        schedule: the `Schedule` of the run.
        rules: how each variable is optimised, the `rule_table` of the variables.

    Returns:
        AdamW (on TensorFlow a `FusedAdamW`) with the rates and the decay that the rules give each variable. It does
        not clip: the training step clips the gradient of the whole batch.
    """
    rate = learning_rate_schedule(training, schedule)
    moments = {"beta_1": training.beta_1, "beta_2": training.beta_2, "epsilon": 1e-8}
    on_tensorflow = keras.backend.backend() == "tensorflow"
    if on_tensorflow or any(rule.rate_factor != 1.0 for rule in rules):
        decays = [training.weight_decay if rule.decays else 0.0 for rule in rules]
        factors = [rule.rate_factor for rule in rules]
        optimizer = _layerwise_class(on_tensorflow)(rate, factors, decays, **moments)
    else:
        # What Keras makes of it on PyTorch updates all variables at once.
        optimizer = keras.optimizers.AdamW(rate, weight_decay=training.weight_decay, **moments)
        spared = [variable for variable, rule in zip(variables, rules) if not rule.decays]
        optimizer.exclude_from_weight_decay(var_list=spared)
    optimizer.build(variables)
    return optimizer


def _layerwise_class(on_tensorflow):
    if not on_tensorflow:
        return LayerwiseAdamW
    from experiments.optim.fused_adamw import FusedAdamW

    return FusedAdamW
