"""Exponential moving average of the weights of a model."""

import contextlib
from collections.abc import Iterable, Iterator

import keras
import tensorflow as tf


class AveragedWeights:
    """The moving average of variables: after each step `average = decay * average + (1 - decay) * variable`.

    It starts from the initial values of the variables, without bias correction or a smaller decay in the first steps,
    like timm's `ModelEma`, which the authors' code uses. Construct it in the scope of the variables' strategy, so that
    each device has a copy, and all copies are the same.

    Args:
        variables: trainable Keras variables of a model.
        decay: in (0, 1).

    Attributes:
        averages: list of `tf.Variable`, to be saved with a checkpoint.
    """

    def __init__(self, variables: Iterable[keras.Variable], decay: float) -> None:
        self._variables = [variable.value for variable in variables]
        self._decay = decay
        self._strategy = tf.distribute.get_strategy()
        self.averages = [tf.Variable(tf.convert_to_tensor(value), trainable=False) for value in self._variables]

    def begin(self) -> None:
        """Sets the averages to the current values of the variables."""
        _assign(self.averages, self._variables)

    def update(self, skipped: tf.Tensor | None = None) -> None:
        """Moves the averages towards the variables; call it after a step, in cross-replica context.

        Args:
            skipped: scalar float32, 1 if the step was skipped, which leaves the averages unchanged, else 0; None for 0.
        """
        share = 1.0 - self._decay if skipped is None else (1.0 - self._decay) * (1.0 - skipped)
        for average, variable in zip(self.averages, self._variables):
            self._strategy.extended.update(average, _move, args=(variable, share), group=False)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Context in which the variables of the model hold the averages."""
        values = [tf.convert_to_tensor(variable) for variable in self._variables]
        _assign(self._variables, self.averages)
        try:
            yield
        finally:
            _assign(self._variables, values)


def _move(average: tf.Variable, variable: tf.Variable, share: float | tf.Tensor) -> None:
    average.assign_sub(share * (average - variable))


def _assign(variables: Iterable[tf.Variable], values: Iterable[tf.Variable | tf.Tensor]) -> None:
    for variable, value in zip(variables, values):
        variable.assign(tf.convert_to_tensor(value))
