"""Probes during pretraining: the accuracy of the frozen encoder, beside that of a random encoder."""

from convnext.backbone import ConvNeXt
from experiments.config import PretrainConfig
from experiments.data.source import Source
from experiments.errors import UserError
from experiments.evaluation.features import PooledFeatures
from experiments.evaluation.probes import FROZEN_PROBES, FrozenProbes
from experiments.models import make_random_encoder
from experiments.training.callbacks import LogOnce, Measure
from experiments.training.run import Run
from experiments.training.schedule import Schedule
from experiments.types import Metrics

METRICS = {probe: f"{probe}_top1" for probe in FROZEN_PROBES}
RANDOM_METRICS = {probe: f"random_{name}" for probe, name in METRICS.items()}


def check_probing(training: PretrainConfig, source: Source) -> None:
    """Raises UserError if probes are requested and the source lacks the labels or images they need.

    Args:
        training: the `PretrainConfig`.
        source: the `Source`.
    """
    if not training.probe_every:
        return
    asked, off = f"pretrain.probe_every={training.probe_every}", "use --config.pretrain.probe_every=0"
    if not source.num_classes:
        raise UserError(f"{asked}: {source.name} has no labels to probe with; {off}.")
    if source.label_sets is not None:
        raise UserError(f"{asked}: {source.name} has images of several classes, and probes are for one each; {off}.")
    if not source.get("validation"):
        raise UserError(f"{asked}: {source.name} has no validation images: set data.validation_share, or {off}.")


def probing_callbacks(run: Run, encoder: ConvNeXt) -> list[LogOnce | Measure]:
    """Returns the callbacks that probe during a run.

    The probes are fitted to labelled training images and scored on validation images, never on test images.

    Args:
        run: the `Run` of a pretraining.
        encoder: its `ConvNeXt`.

    Returns:
        `[control, probing]`: the first logs the scores of a random encoder, once; the second those of the encoder,
        every `probe_every` epochs and at the end. `final` of both returns metrics, `{name: number}`.
    """
    training, schedule = run.config.pretrain, run.schedule
    probes = FrozenProbes(run.source, "validation", max_images=training.probe_images, seed=run.config.seed)
    features_of = PooledFeatures(encoder, run.preprocessing, run.evaluation_batch_size, run.devices)

    def probe_encoder(step: int) -> Metrics:
        return {METRICS[probe]: float(figure) for probe, figure in probes(features_of).items()}

    def probe_random_encoder() -> Metrics:
        random_encoder = make_random_encoder(run.config, encoder.dtype_policy)  # by the chief alone, on one device
        figures = probes(PooledFeatures(random_encoder, run.preprocessing, run.evaluation_batch_size))
        return {RANDOM_METRICS[probe]: float(figure) for probe, figure in figures.items()}

    when = f"every {training.probe_every} epochs" if training.probe_every > 1 else "every epoch"
    run.log(
        f"  probes        k-NN and linear, on {probes.train.num_examples:,} training and "
        f"{probes.target.num_examples:,} validation images, {when}"
    )
    return [
        LogOnce(tuple(RANDOM_METRICS.values()), probe_random_encoder, run),
        Measure(probe_encoder, run, probing_steps(training.probe_every, schedule)),
    ]


def probing_steps(probe_every: int, schedule: Schedule) -> list[int]:
    """Returns the steps after which a run probes: the ends of every `probe_every`-th epoch, and its own end.

    Args:
        probe_every: number of epochs.
        schedule: the `Schedule` of the run.
    """
    distance = probe_every * schedule.steps_per_epoch
    return sorted({*range(distance, schedule.total_steps, distance), schedule.total_steps})
