"""The training of a run, from its plan to its last checkpoint; what pretraining and fine-tuning have in common."""

import contextlib
import csv
import dataclasses
import time
import typing

import keras

from experiments.config import Config, TrainingConfig
from experiments.data.pipeline import Preparation
from experiments.data.source import Source
from experiments.io import replacing
from experiments.optim.adamw import learning_rate_schedule, make_adamw
from experiments.optim.rules import rule_table
from experiments.training.averaging import AveragedWeights
from experiments.training.checkpoints import Checkpoints, FollowedCheckpoints, choose_start
from experiments.training.distributed_batches import distribute_batches
from experiments.training.distribution import check_batch, choose_precision, describe_devices
from experiments.training.divergence import Divergence
from experiments.training.interruption import Interruption
from experiments.training.loop import Course, train
from experiments.training.pictures import Curves
from experiments.training.plan import Plan
from experiments.training.progress import ProgressBar
from experiments.training.replica_draws import separate_draws
from experiments.training.segments import RecordSegment
from experiments.training.step import make_training_step
from experiments.training.tracking import FlushMetrics, LogMetrics, Tracker
from experiments.training.workdir import record_config
from experiments.training.workers import Workers


@dataclasses.dataclass(frozen=True)
class Job:
    """What is settled before a run takes its first step.

    Args:
        config: the `Config`.
        training: its section for this task.
        workdir: the run's folder.
        workers: the `Workers`.
        source: the images.
        split: those that are trained on.
        plan: the `Plan`.
        model: the model.
        rows: how each of its trainable variables is optimised, as `rule_table` returns it.
        optimizer: its optimizer.
        averages: the `AveragedWeights`, or None.
        preparation: how images are prepared.
        tracker: takes its metrics and pictures.
        say: function that takes a line for the user.
    """

    config: Config
    training: TrainingConfig
    workdir: typing.Any
    workers: Workers
    source: Source
    split: typing.Any
    plan: Plan
    model: keras.Model
    rows: list
    optimizer: keras.optimizers.Optimizer
    averages: AveragedWeights | None
    preparation: Preparation
    tracker: Tracker
    say: typing.Callable

    @property
    def evaluation_batch_size(self):
        """Images that every evaluation of the run works on at a time."""
        return self.config.evaluation_batch(self.training, self.workers.strategy.num_replicas_in_sync)


def prepare_job(config, training, workdir, workers, source, split, make_model, say, layer_decay=None, ema_decay=0.0):
    """Plans the run, and makes model and optimizer.

    Args:
        config: the `Config`.
        training: its section for this task.
        workdir: the run's folder, as `task.run_task` gives it.
        workers: the `Workers`.
        source: the `Source` of the images.
        split: the split of it to train on.
        make_model: function from a dtype policy to the model.
        say: function that takes a line for the user.
        layer_decay: a `LayerDecay`; None for one rate for all variables.
        ema_decay: decay of a moving average of the weights; 0 for none.

    Returns:
        A `Job`.

    Raises:
        UserError: if configuration, data and devices do not go together.
    """
    plan = Plan.of(training, split.num_examples)
    strategy = workers.strategy
    check_batch(training, strategy.num_replicas_in_sync, workers.count)
    precision = choose_precision(config.precision)
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        model = make_model(precision)
        variables = model.trainable_variables
        optimizer = make_adamw(variables, training, plan, layer_decay)
        averages = AveragedWeights(variables, ema_decay) if ema_decay else None
    job = Job(
        config=config,
        training=training,
        workdir=workdir,
        workers=workers,
        source=source,
        split=split,
        plan=plan,
        model=model,
        rows=rule_table(variables, layer_decay=layer_decay),
        optimizer=optimizer,
        averages=averages,
        preparation=Preparation.of(config.data, training),
        tracker=Tracker(workdir, config, say),
        say=say,
    )
    _describe(job, precision)
    return job


def run_job(job, encoder, example_losses, task_callbacks, num_patches=0, mixing=None):
    """Trains until the run is complete, from where it stands.

    Args:
        job: a `Job`.
        encoder: the `ConvNeXt` that pretrained weights are loaded into.
        example_losses: function from a batch to `(B,)` losses.
        task_callbacks: Keras callbacks of the task's own.
        num_patches: number of patches of an image, for tasks that mask.
        mixing: a `Mixing`, for tasks with labels.

    Returns:
        Seconds of training.

    Raises:
        Interrupted: if it was asked to stop.
        UserError, RunError: if it cannot begin or go on.
    """
    config, training, plan, workers = job.config, job.training, job.plan, job.workers
    kind = Checkpoints if workers.is_chief else FollowedCheckpoints
    checkpoints = kind(job.workdir, job.model, job.optimizer, config.keep_checkpoints, job.averages)
    with workers.strategy.scope():
        start_step = choose_start(checkpoints, encoder, config.pretrained, job.say, config.pretrained_stem)
        if job.averages and not start_step:
            job.averages.begin()
        separate_draws(workers.strategy, job.model)
    workers.check_same(start_step=start_step, number_of_images=job.split.num_examples, number_of_steps=plan.total_steps)
    if workers.is_chief:
        record_config(job.workdir, config, training.section)
        _write_rule_table(job)
    course = _course(job, start_step)
    devices, model, optimizer = workers.strategy, job.model, job.optimizer
    stream = (config.seed, start_step, num_patches, mixing)
    batches = distribute_batches(devices, job.split, job.preparation, training.batch_size, *stream)
    parts, clip_norm = training.accumulation_steps, training.clip_norm
    training_step = make_training_step(devices, model, optimizer, example_losses, parts, clip_norm, job.averages)
    began = time.perf_counter()
    with _record(job, start_step, course, task_callbacks) as callbacks, Interruption() as interruption:
        stopping, training_step = workers.stopping(interruption, training_step)
        with workers.training(interruption):
            train(training_step, batches, course, callbacks, checkpoints, stopping, _divergence(job))
    return time.perf_counter() - began


def _divergence(job):
    return Divergence(
        job.workdir,
        job.split,
        job.model.trainable_variables,
        job.training.batch_size,
        job.plan.steps_per_epoch,
        job.config.seed,
        is_recorded=job.workers.is_chief,
    )


@contextlib.contextmanager
def _record(job, start_step, course, task_callbacks):
    """Context of a run that is on record, with the callbacks that keep it; the chief alone has any."""
    if not job.workers.is_chief:
        yield []
        return
    job.tracker.begin(start_step)
    try:
        yield [
            RecordSegment(job, start_step),
            LogMetrics(job.tracker, learning_rate_schedule(job.training, job.plan)),
            *task_callbacks,
            FlushMetrics(job.tracker),
            Curves(job.workdir),
            ProgressBar(job.training.section, course, job.say),
        ]
    finally:
        job.tracker.close()


def _course(job, start_step):
    config, plan = job.config, job.plan
    return Course(
        start_step,
        plan.total_steps,
        plan.steps_per_epoch,
        job.training.batch_size,
        config.log_every,
        config.checkpoint_every,
        config.checkpoint_minutes if job.workers.is_chief else 0.0,  # the others save nothing
    )


def _describe(job, precision):
    training, plan, data = job.training, job.plan, job.config.data
    others = [f"{name} {split.num_examples:,}" for name in ("validation", "test") if (split := job.source.get(name))]
    length = f"{plan.total_steps / plan.steps_per_epoch:.4g} epochs of {plan.steps_per_epoch:,}"
    decaying = sum(row.decays for row in job.rows)
    job.say(f"{training.section}")
    job.say(f"  devices       {describe_devices(job.workers.strategy, job.workers.count)}, {precision}")
    job.say(f"  dataset       {job.source.name}, {job.source.num_classes or 'no'} classes")
    for note in job.source.notes:
        job.say(f"                {note}")
    shape = f"{data.image_size}x{data.image_size}x{data.channels}"
    held_out = f" ({', '.join(others)})" if others else ""
    job.say(f"  images        {job.split.num_examples:,} to train on, as {shape}{held_out}")
    job.say(f"  model         {job.model.name}, {job.model.count_params():,} parameters")
    job.say(f"  steps         {plan.total_steps:,} ({length}), batch {training.batch_size}")
    job.say(
        f"  optimizer     AdamW, peak rate {plan.peak_learning_rate:.3g} after {plan.warmup_steps:,} steps, decay "
        f"{training.weight_decay:g} on {decaying} of {len(job.rows)} variables"
    )
    job.say(f"  workdir       {job.workdir}")


def _write_rule_table(job):
    """Writes how each variable is optimised to `parameters.csv`."""
    with replacing(job.workdir / "parameters.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("variable", "shape", "rule", "peak_learning_rate", "weight_decay"))
        for row in job.rows:
            shape = "x".join(map(str, row.shape))
            rate = job.plan.peak_learning_rate * row.rate_factor
            decay = job.training.weight_decay if row.decays else 0.0
            writer.writerow((row.path, shape, row.rule, rate, decay))
