"""What the encoder knows of the classes while it is pretrained without them, beside what a random encoder knows."""

import keras

from experiments.errors import UserError
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.frozen import FROZEN_PROBES, FrozenProbes
from experiments.models import make_random_encoder
from experiments.training.evaluating import Measure

METRICS = {probe: f"{probe}_top1" for probe in FROZEN_PROBES}
RANDOM_METRICS = {probe: f"random_{name}" for probe, name in METRICS.items()}


def check_probing(training, source):
    """Raises UserError if probes are asked for and the source has not what they need.

    Args:
        training: the `PretrainConfig`.
        source: the `Source`.
    """
    if not training.probe_every:
        return
    asked, off = f"pretrain.probe_every={training.probe_every}", "use --config.pretrain.probe_every=0"
    if not source.num_classes:
        raise UserError(f"{asked}: {source.name} has no labels to probe with; {off}.")
    if not source.get("validation"):
        raise UserError(f"{asked}: {source.name} has no validation images: set data.validation_share, or {off}.")


def probing_callbacks(job, encoder):
    """Returns the callbacks that probe during a run.

    The probes learn from labelled training images and are scored on validation images, never on those of the test.

    Args:
        job: the `Job` of a pretraining run.
        encoder: its `ConvNeXt`.

    Returns:
        `[control, probing]`: one logs the figures of a random encoder, once, the other those of the encoder every
        `probe_every` epochs and at the end. `final` of both returns metrics, `{name: number}`.
    """
    training, plan = job.training, job.plan
    probes = FrozenProbes(job.source, "validation", max_images=training.probe_images, seed=job.config.seed)
    features_of = PooledFeatures(encoder, job.preparation, job.evaluation_batch_size)

    def probe_encoder():
        return {METRICS[probe]: float(figure) for probe, figure in probes(features_of).items()}

    def probe_random_encoder():
        random_encoder = make_random_encoder(job.config, encoder.dtype_policy)
        figures = probes(PooledFeatures(random_encoder, job.preparation, job.evaluation_batch_size))
        return {RANDOM_METRICS[probe]: float(figure) for probe, figure in figures.items()}

    when = f"every {training.probe_every} epochs" if training.probe_every > 1 else "every epoch"
    job.say(
        f"  probes        k-NN and linear, on {probes.train.num_examples:,} training and "
        f"{probes.target.num_examples:,} validation images, {when}"
    )
    return [
        LogOnce(tuple(RANDOM_METRICS.values()), probe_random_encoder, job.tracker),
        Measure(probe_encoder, job.tracker, probing_steps(training.probe_every, plan)),
    ]


def probing_steps(probe_every, plan):
    """Returns the steps after which a run probes: the ends of every `probe_every`-th epoch, and its own end.

    Args:
        probe_every: number of epochs.
        plan: the `Plan` of the run.
    """
    distance = probe_every * plan.steps_per_epoch
    return sorted({*range(distance, plan.total_steps, distance), plan.total_steps})


class LogOnce(keras.callbacks.Callback):
    """Logs metrics that belong to a whole run once, however often it stops and goes on.

    They stand at the step at which the run begins. If it goes on and they are not on record, they are logged then.

    Args:
        names: of the metrics.
        measure: function without arguments that returns the metrics, `{name: number}`.
        tracker: the `Tracker`.
    """

    def __init__(self, names, measure, tracker):
        super().__init__()
        self._names = names
        self._measure = measure
        self._tracker = tracker

    def on_train_begin(self, logs=None):
        if len(self.final()) < len(self._names):
            self._tracker.log(self._tracker.step, self._measure())
            self._tracker.flush()

    def final(self):
        """Returns the metrics as they were logged."""
        return self._tracker.recorded(self._names)
