"""Several workers stop after the same step, whichever of them is asked to."""

import collections

import tensorflow as tf

# Steps after which an answer is read: it is there by then, so no device has to be waited for.
DELAY = 4


class Agreement:
    """What an `Interruption` is to one process, for several workers.

    With each step goes the question whether any worker was asked to stop. Its answer is a sum over all workers, and all
    read it the same number of steps later; so they agree on the step without waiting for the step at work.

    Args:
        interruption: the `Interruption` of this worker.
        when_agreed: function without arguments, called when the workers have agreed to stop.
        when_released: function without arguments, called when the last step that all take part in is done.

    Attributes:
        requested: whether the workers stop after the current step.
    """

    def __init__(self, interruption, when_agreed, when_released):
        self._interruption = interruption
        self._when_agreed = when_agreed
        self._when_released = when_released
        self._answers = collections.deque()
        self.requested = False

    def release(self):
        """Called when the last step was read: what follows needs no other worker."""
        self._when_released()

    def asking(self, training_step):
        """Returns the training step, a function of a batch, that asks along with it."""

        def step(batch):
            metrics = dict(training_step(batch, tf.constant(float(self._interruption.requested))))
            self._answers.append(metrics.pop("requests"))
            if len(self._answers) > DELAY and float(self._answers.popleft()) > 0.0 and not self.requested:
                self.requested = True
                self._when_agreed()
            return metrics

        return step
