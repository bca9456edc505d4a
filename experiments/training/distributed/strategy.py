"""The devices of a run: strategy, distribution of batches, and precision."""

import faulthandler
import functools
import os
import signal
import threading
from collections.abc import Callable
from typing import TextIO

import keras
import numpy as np
import tensorflow as tf

from experiments.config import Config, TrainingConfig
from experiments.errors import RunError, UserError
from experiments.io import reason
from experiments.training.distributed.cluster import Cluster

SECONDS_TO_CONNECT = 120  # in which TensorFlow finds the GPUs and connects the workers


def make_strategy(config: Config) -> tf.distribute.Strategy:
    """Returns the `tf.distribute.Strategy` over the devices of this process; call it before TensorFlow uses one.

    Args:
        config: a `Config`.

    Raises:
        UserError: if the CPU can no longer be split.
    """
    names = local_devices(config)
    if config.distribution == "none" or (len(names) == 1 and config.distribution != "mirrored"):
        return tf.distribute.OneDeviceStrategy(names[0])
    return _mirrored(names)


def local_devices(config: Config) -> tuple[str, ...]:
    """Returns the names of the devices of this process that a run uses: all GPUs, or else the parts of the CPU.

    TensorFlow must connect several workers before it uses a device, so these are names of physical devices.
    """
    if config.distribution == "multiworker":
        return tuple(device.name for device in tf.config.list_physical_devices("GPU")) or ("CPU",)
    if config.logical_cpus > 1:
        _split_cpu(config.logical_cpus)
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")[: max(1, config.logical_cpus)]
    return tuple(device.name for device in devices)


@functools.cache
def multiworker_strategy(cluster: Cluster) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Returns the strategy over all devices of a cluster's workers, the same object on every call in a process.

    Args:
        cluster: a `Cluster`, all of whose workers call this now.

    Raises:
        UserError: if TensorFlow has used a device before.
        RunError: if the workers cannot connect to each other.
    """
    try:
        # TensorFlow holds the interpreter lock meanwhile: only faulthandler can end the process, without a message.
        faulthandler.dump_traceback_later(SECONDS_TO_CONNECT, exit=True, file=_nowhere())
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=cluster.resolver())
    except RuntimeError as error:
        raise UserError(f"distribution=multiworker needs a process of its own: {error}") from error
    except tf.errors.OpError as error:
        raise RunError(f"The workers cannot connect to each other: {reason(error)}.") from error
    finally:
        faulthandler.cancel_dump_traceback_later()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # TensorFlow has replaced it


@functools.cache
def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


@functools.cache
def _mirrored(names: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """Returns the strategy over these devices, one per process: two would mix up their collective operations."""
    return tf.distribute.MirroredStrategy(list(names))


def _split_cpu(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise UserError(f"logical_cpus={count} cannot be set: this process already uses its CPU.") from error


def check_batch(training: TrainingConfig, num_replicas: int, num_workers: int = 1) -> None:
    """Checks that a batch divides over the devices and accumulation steps.

    Args:
        training: a `TrainingConfig`.
        num_replicas: devices of all workers.
        num_workers: how many workers have them.

    Raises:
        UserError: if it does not; the message names the nearest sizes that do.
    """
    unit = num_replicas * training.accumulation_steps
    if training.batch_size % unit == 0:
        return
    below = training.batch_size // unit * unit
    nearest = " or ".join(str(size) for size in (below, below + unit) if size)
    devices = f"{num_workers} workers x {num_replicas // num_workers}" if num_workers > 1 else f"{num_replicas}"
    raise UserError(
        f"{training.section}.batch_size={training.batch_size} is not divisible by {devices} devices x "
        f"{training.accumulation_steps} accumulation steps; use {nearest}."
    )


def choose_precision(precision: str) -> str:
    """Returns the Keras dtype policy of a run.

    `auto` is bfloat16 where all GPUs have compute capability 8 or more, float16 where all have 7 or more, and float32
    elsewhere.
    """
    if precision != "auto":
        return precision
    gpus = tf.config.list_physical_devices("GPU")
    details = map(tf.config.experimental.get_device_details, gpus)
    least = min((found.get("compute_capability", (0,))[0] for found in details), default=0)
    return "mixed_bfloat16" if least >= 8 else "mixed_float16" if least == 7 else "float32"


def describe_devices(strategy: tf.distribute.Strategy, num_workers: int = 1) -> str:
    """Returns a description of a strategy's devices, such as `2 x GPU, mirrored`."""
    names = [tf.DeviceSpec.from_string(name).device_type for name in strategy.extended.worker_devices]
    workers = f"{num_workers} workers x " if num_workers > 1 else ""
    return f"{workers}{len(names)} x {names[0]}" + (", mirrored" if num_workers * len(names) > 1 else "")


def distribute_batches(
    strategy: tf.distribute.Strategy, batches_of: Callable[[int, int], tf.data.Dataset], batch_size: int
) -> tf.distribute.DistributedDataset:
    """Returns training batches, each divided among all devices.

    Each worker reads the share of a batch that its own devices work on.

    Args:
        strategy: the `tf.distribute.Strategy`.
        batches_of: function of the number of a shard and how many there are that returns its `tf.data.Dataset`.
        batch_size: images of a batch, over all devices.

    Raises:
        UserError: if the workers cannot share the batches.
    """
    size = batch_size // strategy.num_replicas_in_sync

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        num_shards = context.num_input_pipelines
        batches = batches_of(context.input_pipeline_id, num_shards)
        devices = strategy.num_replicas_in_sync // num_shards
        if devices > 1:
            batches = batches.rebatch(size, drop_remainder=True).prefetch(devices)
        # Without this, the workers ask each other at every step whether one has run out of batches.
        return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    return strategy.distribute_datasets_from_function(of_worker)


STRIDE = 0x9E3779B9  # odd, so that all replicas have a seed of their own


def generator_states(model: keras.Model) -> list[tf.Variable]:
    """Returns the states of a model's random generators, `tf.Variable`s `(2,)`: seed and count."""
    return [variable.value for variable in model.variables if "seed_generator" in variable.path]


def per_replica_seeds(strategy: tf.distribute.Strategy, model: keras.Model) -> None:
    """Gives the generators of every replica a seed of their own.

    All copies of a state must be equal before the call: call it once, after a run has loaded what it starts from. The
    first replica keeps its seed. A checkpoint holds the state of the first replica, which determines all others.

    Args:
        strategy: the `tf.distribute.Strategy` that the model was made in.
        model: the model.
    """
    if strategy.num_replicas_in_sync == 1:
        return
    states = generator_states(model)
    seeds_and_counts = [np.asarray(state.numpy()).tolist() for state in states]

    @tf.function(autograph=False)
    def separate() -> None:
        def of_replica() -> None:
            index = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)
            for state, (seed, count) in zip(states, seeds_and_counts):
                own = (seed + index * STRIDE) % 2**32
                state.assign(tf.cast(tf.stack([own, count]), state.dtype))

        strategy.run(of_replica)

    separate()
