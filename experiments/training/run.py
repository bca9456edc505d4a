"""A run of a task, from checking the workdir to writing the summary: set up, restore, train, finish."""

import contextlib
import csv
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from convnext.backbone import ConvNeXt
from experiments.config import Config, TrainingConfig, size_text
from experiments.data.augmentation.mixing import Mixing
from experiments.data.pipeline import training_batches
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import Source, Split
from experiments.evaluation.devices import Devices
from experiments.io import as_path, replacing
from experiments.lock import sole_use_of
from experiments.optim.adamw import make_adamw
from experiments.optim.param_groups import LayerDecay, rule_table
from experiments.training.callbacks import LogMetrics, Measure, Profile, ProgressBar, RecordProvenance
from experiments.training.checkpoint import Checkpoints
from experiments.training.distributed.strategy import (
    check_batch,
    choose_precision,
    describe_devices,
    distribute_batches,
    per_replica_seeds,
)
from experiments.training.distributed.workers import Workers, connected_workers
from experiments.training.ema import AveragedWeights
from experiments.training.guards import (
    Divergence,
    Interruption,
    ignoring_broken_pipe,
    naming_lack_of_memory,
    stopping_at_once,
)
from experiments.training.loggers import Loggers
from experiments.training.loop import train
from experiments.training.loss_scale import LossScale
from experiments.training.pictures import Curves
from experiments.training.schedule import Schedule
from experiments.training.start import check_start, choose_start
from experiments.training.statistics import with_statistics
from experiments.training.step import make_training_step
from experiments.training.workdir import SUMMARY, check_writable, record_config, save_model, write_json
from experiments.types import Batch, Log, Path


class Task:
    """The part of a run that depends on its task: images, model, loss, callbacks and results.

    Subclasses implement pretraining and fine-tuning; `Run` does the rest in the same way for all of them.

    Args:
        config: the `Config`.

    Attributes:
        name: of the task, and of its section of the configuration.
        config: the `Config`.
        training: its section for this task, a `TrainingConfig`.
        source: the `Source` of the images.
        split: the split of it to train on.
        layer_decay: a `LayerDecay`; None for one rate for all variables.
        ema_decay: decay of a moving average of the weights; 0 for none.
        mixing: a `Mixing` of images and labels; None for none.

    Raises:
        UserError: if the images do not have what the task needs.
    """

    name = ""
    training: TrainingConfig
    source: Source
    split: Split
    layer_decay: LayerDecay | None = None
    ema_decay = 0.0
    mixing: Mixing | None = None

    def __init__(self, config: Config) -> None:
        self.config = config
        self.training = getattr(config, self.name)

    def make_model(self, dtype: str) -> keras.Model:
        """Returns the model to train, with the Keras dtype policy `dtype`."""
        raise NotImplementedError

    def encoder(self, model: keras.Model) -> ConvNeXt:
        """Returns the `ConvNeXt` in the model that pretrained weights are loaded into."""
        raise NotImplementedError

    def num_patches(self, model: keras.Model) -> int:
        """Returns the number of patches of an image for which mask noise is drawn; 0 draws none."""
        return 0

    def batches(self, run: "Run", shard: int, num_shards: int) -> tf.data.Dataset:
        """Returns the endless training batches from the start step of a run on, or one shard of them."""
        return training_batches(
            self.split,
            run.preprocessing,
            self.training.batch_size,
            self.config.seed,
            run.start_step,
            self.num_patches(run.model),
            self.mixing,
            shard,
            num_shards,
        )

    def example_losses(self, model: keras.Model) -> Callable[[Batch], tf.Tensor]:
        """Returns the function from a batch to the loss of each example, `(B,)` float32."""
        raise NotImplementedError

    def callbacks(self, run: "Run") -> list[keras.callbacks.Callback]:
        """Returns the Keras callbacks of the task; all workers call each `Measure`, only the chief calls the others.

        `run` is set up but not restored.
        """
        raise NotImplementedError

    def finish(self, run: "Run") -> dict[str, Any]:
        """Saves and evaluates the model of a complete run; returns the task's part of the summary, a dictionary.

        All workers evaluate together; the chief alone writes, and its result counts.
        """
        raise NotImplementedError


def run_task(
    task_type: type[Task], config: Config, workdir: str | os.PathLike[str], resume: str = "auto", log: Log = print
) -> dict[str, Any] | None:
    """Starts or resumes a run, as one of its workers; returns the summary once it is complete.

    Args:
        task_type: subclass of `Task`.
        config: the `Config`.
        workdir: path or URL of the folder for the results of the run.
        resume: `auto` resumes the run in the workdir, if there is one; `never` refuses it; `anyway` resumes it even
            with a different configuration.
        log: function that takes a line for the user.

    Returns:
        The content of `summary.json`, a dictionary; with several workers only on the chief, None on the others.

    Raises:
        UserError, RunError, Interrupted: see `experiments.errors`.
    """
    log = ignoring_broken_pipe(log)
    with stopping_at_once(), connected_workers(config, task_type.name, workdir, log) as workers:
        log = log if workers.is_chief else lambda line: None
        workdir = as_path(workdir)
        check_writable(workdir)
        with sole_use_of(workdir, log) if workers.is_chief else contextlib.nullcontext():
            summary = check_start(workdir, config, task_type.name, resume, workers, log)
            if summary is None:
                task = task_type(config)
                task.config = with_statistics(config, task.split, workdir, log)
                run = Run(task, workdir, workers, log)
                run.restore()
                run.train()
                summary = run.finish()
        return summary if workers.is_chief else None


class Run:
    """A run: `Run(...)` sets it up, then `restore`, `train` and `finish`, in this order.

    Args:
        task: the `Task`.
        workdir: path of the run's folder.
        workers: the `Workers`.
        log: function that takes a line for the user.

    Attributes:
        schedule: the `Schedule`: number of steps, and rates.
        model: the model, made in the scope of the workers' strategy.
        optimizer: its optimizer.
        averages: the `AveragedWeights`, or None.
        loss_scale: the `LossScale` of float16, or None.
        preprocessing: how images are prepared.
        devices: the `Devices` of evaluation.
        loggers: the `Loggers` that take metrics and pictures.
        start_step: number of steps that were done when the run was restored.
        seconds: seconds of training since it was restored.

    Raises:
        UserError: if configuration, data and devices do not go together.
    """

    def __init__(self, task: Task, workdir: Path, workers: Workers, log: Log) -> None:
        self.task, self.workdir, self.workers, self.log = task, workdir, workers, log
        self.config, self.training, self.source, self.split = task.config, task.training, task.source, task.split
        self.schedule = Schedule.of(self.training, self.split.num_examples)
        check_batch(self.training, workers.strategy.num_replicas_in_sync, workers.count)
        precision = choose_precision(self.config.precision)
        keras.utils.set_random_seed(self.config.seed)
        with workers.strategy.scope():
            self.model = task.make_model(precision)
            variables = self.model.trainable_variables
            self._rules = rule_table(variables, layer_decay=task.layer_decay)
            self.optimizer = make_adamw(variables, self.training, self.schedule, self._rules)
            self.averages = AveragedWeights(variables, task.ema_decay) if task.ema_decay else None
            self.loss_scale = LossScale() if precision == "mixed_float16" else None
        self.preprocessing = Preprocessing.of(self.config.data, self.training)
        self.devices = Devices(workers.strategy, workers)
        self.loggers = Loggers(workdir, self.config)
        self._describe(precision)
        self._callbacks = task.callbacks(self)

    @property
    def evaluation_batch_size(self) -> int:
        """Images per evaluation step, on each device."""
        return self.config.evaluation_batch()

    def restore(self) -> None:
        """Restores the run's own checkpoint, else loads pretrained weights, else keeps the random ones.

        Raises:
            UserError: if the checkpoint or the pretrained weights do not fit the model.
            RunError: if there are checkpoints and none can be read.
        """
        config, workers = self.config, self.workers
        self._checkpoints = Checkpoints(
            self.workdir,
            self.model,
            self.optimizer,
            config.keep_checkpoints,
            self.averages,
            workers.is_chief,
            self.loss_scale,
        )
        with workers.strategy.scope():
            encoder = self.task.encoder(self.model)
            stem = config.pretrained_stem
            self.start_step = choose_start(self._checkpoints, encoder, config.pretrained, self.log, stem)
            if self.averages and not self.start_step:
                self.averages.begin()
            per_replica_seeds(workers.strategy, self.model)
        workers.check_same(
            start_step=self.start_step,
            number_of_images=self.split.num_examples,
            number_of_steps=self.schedule.total_steps,
        )
        if workers.is_chief:
            record_config(self.workdir, config, self.task.name)
            self._write_rules()

    def train(self) -> None:
        """Runs the remaining steps.

        Raises:
            Interrupted: if the run was asked to stop; its state is saved.
            UserError, RunError: if it cannot start or continue.
        """
        training, task, workers, model = self.training, self.task, self.workers, self.model
        batches_of = functools.partial(task.batches, self)
        batches = distribute_batches(workers.strategy, batches_of, training.batch_size)
        training_step = make_training_step(
            workers.strategy,
            model,
            self.optimizer,
            task.example_losses(model),
            training.accumulation_steps,
            training.clip_norm,
            self.averages,
            self.loss_scale,
            self.config.compile,
            self.config.model.remat,
        )
        divergence = Divergence(self, self._checkpoints)
        began = time.perf_counter()
        with self._recorded() as callbacks, Interruption() as interruption, workers.training(interruption):
            stop = workers.stop_request(interruption)
            with naming_lack_of_memory(self, self._checkpoints):
                train(self, training_step, batches, callbacks, self._checkpoints, stop, divergence)
        self.seconds = time.perf_counter() - began

    def finish(self) -> dict[str, Any] | None:
        """Saves and evaluates the model, writes the summary and returns it; the other workers wait for the summary."""
        results = self.task.finish(self)
        self.workers.part()
        if not self.workers.is_chief:
            self.workers.wait_for_summary(self.workdir)
            return None
        summary = {
            "task": self.task.name,
            "steps": self.schedule.total_steps,
            "images": self.split.num_examples,
            "seconds": round(self.seconds, 1),
            **({"skipped_steps": int(self.loss_scale.skipped_steps.numpy())} if self.loss_scale else {}),
            **results,
        }
        write_json(self.workdir / SUMMARY, summary)
        return summary

    def save(self, model: keras.Model, name: str) -> None:
        """Saves a model in the workdir, under a name; only the chief does."""
        if self.workers.is_chief:
            save_model(model, self.workdir / name)

    def shared(self, callbacks: Iterable[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
        """Returns those of the callbacks that this worker calls: the chief all, others the measurements."""
        return [callback for callback in callbacks if self.workers.is_chief or isinstance(callback, Measure)]

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[list[keras.callbacks.Callback]]:
        """Context with open loggers, which yields the callbacks; only the chief logs."""
        if not self.workers.is_chief:
            yield self.shared(self._callbacks)
            return
        self.loggers.begin(self.start_step)
        try:
            profile = [Profile(self)] if self.config.profile_steps else []
            yield [
                RecordProvenance(self),
                LogMetrics(self),
                *self._callbacks,
                *profile,
                Curves(self.workdir),
                ProgressBar(self),
            ]
        finally:
            self.loggers.close()

    def _describe(self, precision: str) -> None:
        training, schedule, data, source, log = self.training, self.schedule, self.config.data, self.source, self.log
        others = [f"{name} {split.num_examples:,}" for name in ("validation", "test") if (split := source.get(name))]
        held_out = f" ({', '.join(others)})" if others else ""
        epochs = f"{schedule.total_steps / schedule.steps_per_epoch:.4g} epochs of {schedule.steps_per_epoch:,}"
        decaying = sum(rule.decays for rule in self._rules)
        log(f"{self.task.name}")
        log(f"  devices       {describe_devices(self.workers.strategy, self.workers.count)}, {precision}")
        log(f"  dataset       {source.name}, {source.num_classes or 'no'} classes")
        for note in source.notes:
            log(f"                {note}")
        shape = f"{size_text(data.image_size)}x{data.channels}"
        log(f"  images        {self.split.num_examples:,} to train on, as {shape}{held_out}")
        log(f"  model         {self.model.name}, {self.model.count_params():,} parameters")
        log(f"  steps         {schedule.total_steps:,} ({epochs}), batch {training.batch_size}")
        log(
            f"  optimizer     AdamW, peak rate {schedule.peak_learning_rate:.3g} after {schedule.warmup_steps:,} "
            f"steps, decay {training.weight_decay:g} on {decaying} of {len(self._rules)} variables"
        )
        log(f"  workdir       {self.workdir}")

    def _write_rules(self) -> None:
        """Writes how each variable is optimised to `parameters.csv`."""
        with replacing(self.workdir / "parameters.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("variable", "shape", "rule", "peak_learning_rate", "weight_decay"))
            for rule in self._rules:
                shape = "x".join(map(str, rule.shape))
                rate = self.schedule.peak_learning_rate * rule.rate_factor
                decay = self.training.weight_decay if rule.decays else 0.0
                writer.writerow((rule.path, shape, rule.rule, rate, decay))
