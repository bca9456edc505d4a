"""Checkpoints: all that a run needs to go on as if it had never stopped."""

import tensorflow as tf

from convnext.pretrained import PretrainedError, find_weights, load_pretrained
from experiments.errors import RunError, UserError
from experiments.training.replica_draws import generator_states

FOLDER = "checkpoints"
# What TensorFlow raises for a checkpoint that is cut short, damaged or gone.
DAMAGE = (tf.errors.OpError, ValueError, LookupError, RuntimeError, AssertionError, OSError)


class Checkpoints:
    """The checkpoints in a run's workdir: model with its generators of random numbers, optimizer
    (with its step), moving average of the weights and position in the data.

    Args:
        workdir: of the run.
        model: built model.
        optimizer: built optimizer.
        keep: number of newest checkpoints that are kept.
        averages: the `AveragedWeights`, for a run that has them.
    """

    def __init__(self, workdir, model, optimizer, keep, averages=None):
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._window = tf.Variable("", dtype=tf.string, trainable=False, name="window")
        # A model does not track its generators of random numbers (stochastic depth, dropout) for TensorFlow.
        parts = {"model": model, "optimizer": optimizer, "generators": generator_states(model)}
        if averages:
            parts["averages"] = averages.averages
        self._checkpoint = tf.train.Checkpoint(**parts, step=self._step, window=self._window)
        self._directory = workdir / FOLDER
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(self._directory), max_to_keep=keep)

    @property
    def latest(self):
        """Path of the newest checkpoint, or None."""
        return self._manager.latest_checkpoint

    @property
    def window(self):
        """The text that was saved with the restored checkpoint; empty without one."""
        return self._window.numpy().decode()

    def save(self, step, window=""):
        """Saves the state after `step` steps, with the metrics that are not logged yet as a text."""
        self._step.assign(step)
        self._window.assign(window)
        self._manager.save(checkpoint_number=step)

    def restore(self):
        """Restores the newest checkpoint that can be read.

        Returns:
            `(step, damaged)`: the step it was saved at, 0 if there is none, and the paths of newer ones that
            could not be read.

        Raises:
            RunError: if there are checkpoints and none can be read.
        """
        damaged = []
        if not self._manager.checkpoints and list(self._directory.glob("ckpt-*.index")):
            raise RunError(f"{self._directory} holds checkpoints, but the file that lists them is lost or damaged.")
        for path in reversed(self._manager.checkpoints):
            try:
                self._checkpoint.restore(path).assert_existing_objects_matched()
                return int(self._step), damaged
            except DAMAGE:
                damaged.append(path)
        if damaged:
            raise RunError(f"No checkpoint can be read: {', '.join(damaged)}. Name another --workdir to start anew.")
        return 0, damaged


class FollowedCheckpoints(Checkpoints):
    """The same checkpoints for a worker that is not the chief: it goes on from them, and writes none.

    Every worker has all of the state, so the chief needs nobody to save it.
    """

    def save(self, step, window=""):
        """Leaves it to the chief."""


def check_pretrained(pretrained, workdir):
    """Raises UserError if a run without a checkpoint of its own is to start from weights that are not there.

    Args:
        pretrained: a run's workdir or a file; empty for none.
        workdir: of the run.
    """
    if not pretrained or tf.train.latest_checkpoint(str(workdir / FOLDER)):
        return
    try:
        find_weights(pretrained)
    except PretrainedError as error:
        raise UserError(f"pretrained={pretrained}: {error}") from error


def choose_start(checkpoints, encoder, pretrained, say, pretrained_stem="load"):
    """Decides what a run starts from:

    1. the newest checkpoint in its own workdir,
    2. the weights that `pretrained` names,
    3. random weights.

    Args:
        checkpoints: the `Checkpoints` of the run.
        encoder: the `ConvNeXt` that pretrained weights are for.
        pretrained: a run's workdir or a file; empty for none.
        say: function that takes a line for the user.
        pretrained_stem: as `convnext.load_pretrained` takes it.

    Returns:
        The number of steps that are done.

    Raises:
        UserError: if the pretrained weights cannot be loaded.
        RunError: if there are checkpoints and none can be read.
    """
    step, damaged = checkpoints.restore()
    for path in damaged:
        say(f"checkpoint {path} is damaged: falling back to the one before")
    if step:
        say(f"  starts from   its own checkpoint of step {step:,}")
    elif pretrained:
        try:
            report = load_pretrained(encoder, pretrained, pretrained_stem)
        except PretrainedError as error:
            raise UserError(f"pretrained={pretrained}: {error}") from error
        say(f"  starts from   {report}")
    else:
        say("  starts from   random weights")
    return step
