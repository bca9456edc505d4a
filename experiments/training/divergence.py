"""A run whose loss or weights are no longer finite: it stops, and says at which step and on which images."""

import math
import os

import numpy as np

from experiments.data.batch_examples import examples_of_batch
from experiments.errors import RunError
from experiments.io import StorageError, remove
from experiments.training.workdir import write_json

RECORD = "nonfinite.json"
SHOWN = 3
ADVICE = "A lower base_learning_rate, a longer warmup or clip_norm may help."


class Divergence:
    """Watches over the numbers of a run.

    What is not finite at a step came of its own batch, or of the step before: of a gradient that was not finite while
    the loss still was. So `nonfinite.json` in the workdir names the images of both.

    Args:
        workdir: of the run; a record of an earlier attempt is removed.
        split: the examples that are trained on.
        variables: of the model, those that train.
        batch_size: images of a step.
        steps_per_epoch: steps of an epoch.
        seed: of the run.
        is_recorded: whether this process writes into the workdir.
    """

    def __init__(self, workdir, split, variables, batch_size, steps_per_epoch, seed, is_recorded=True):
        self._path = workdir / RECORD
        self._split = split
        self._variables = variables
        self._batch_size = batch_size
        self._steps_per_epoch = steps_per_epoch
        self._seed = seed
        self._is_recorded = is_recorded
        if is_recorded:
            remove(self._path)

    def check_losses(self, losses, step, last_good):
        """Looks at losses that have been read from the device.

        Args:
            losses: of consecutive steps, a list of numbers.
            step: the last of these steps.
            last_good: function without arguments that returns what there is to go on from, as a part of a sentence.

        Raises:
            RunError: if one of them is not finite. It names the first of them.
        """
        for at, loss in enumerate(losses, step - len(losses) + 1):
            if not math.isfinite(loss):
                self._stop(f"The loss is {loss} at step {at:,}", at, loss, last_good)

    def check_weights(self, loss, step, last_good):
        """Looks at the weights, before they are saved as good ones.

        Args:
            loss: of the step that has been taken.
            step: its number.
            last_good: function without arguments that returns what there is to go on from, as a part of a sentence.

        Raises:
            RunError: if a weight is not finite.
        """
        for variable in self._variables:
            if not np.isfinite(variable.numpy()).all():
                what = f"{variable.path} is not finite after step {step:,}, whose loss is {loss}"
                self._stop(what, step, loss, last_good)

    def _stop(self, what, step, loss, last_good):
        found = f"; {self._record(step, loss)}" if self._is_recorded else ""
        raise RunError(f"{what}; {last_good()}{found}. {ADVICE}")

    def _record(self, step, loss):
        """Writes the images down; returns what to say of it."""
        batches = [self._batch(at) for at in range(max(1, step - 1), step + 1)]
        try:
            write_json(self._path, {"step": step, "loss": str(loss), "batches": batches})  # JSON has no nan
        except StorageError as error:
            return str(error).rstrip(".")
        names = [os.path.basename(example["name"]) for example in batches[-1]["examples"] if "name" in example]
        shown = f" ({', '.join(names[:SHOWN])}, ...)" if names else ""
        return f"{self._path} names the images of that step{shown} and of the one before"

    def _batch(self, step):
        epoch, batch = divmod(step - 1, self._steps_per_epoch)
        first = batch * self._batch_size
        examples = examples_of_batch(self._split, self._batch_size, self._seed, step)
        positions = range(first, first + self._batch_size)
        return {
            "step": step,
            "epoch": epoch,
            "examples": [{"position": position, **example} for position, example in zip(positions, examples)],
        }
