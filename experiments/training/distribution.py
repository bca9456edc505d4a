"""Devices: which there are, how a run spreads over them, and in which precision they compute."""

import functools

import tensorflow as tf

from experiments.errors import UserError


def make_strategy(config):
    """Returns the `tf.distribute.Strategy` of a run; call it before TensorFlow touches a device.

    Args:
        config: a `Config`.

    Raises:
        UserError: if the CPU can no longer be split.
    """
    if config.logical_cpus > 1:
        _split_cpu(config.logical_cpus)
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")[: max(1, config.logical_cpus)]
    if config.distribution == "none" or (len(devices) == 1 and config.distribution == "auto"):
        return tf.distribute.OneDeviceStrategy(devices[0].name)
    return _mirrored(tuple(device.name for device in devices))


@functools.cache
def _mirrored(names):
    """Returns the one strategy of a process over these devices: two would mix up their collective operations."""
    return tf.distribute.MirroredStrategy(list(names))


def _split_cpu(count):
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) != count:
            raise UserError(f"logical_cpus={count} comes too late: this process uses its CPU already.") from error


def check_batch(training, num_replicas):
    """Checks that a batch divides over the devices and accumulation steps.

    Raises:
        UserError: if it does not; it names the nearest sizes that do.
    """
    unit = num_replicas * training.accumulation_steps
    if training.batch_size % unit == 0:
        return
    below = training.batch_size // unit * unit
    nearest = " or ".join(str(size) for size in (below, below + unit) if size)
    raise UserError(
        f"{training.section}.batch_size={training.batch_size} does not divide by {num_replicas} devices x "
        f"{training.accumulation_steps} accumulation steps; use {nearest}."
    )


def choose_precision(precision):
    """Returns the Keras dtype policy of a run: `auto` is bfloat16 on GPUs of compute capability 8 and up."""
    if precision != "auto":
        return precision
    gpus = tf.config.list_physical_devices("GPU")
    capable = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0,))[0] >= 8 for gpu in gpus]
    return "mixed_bfloat16" if gpus and all(capable) else "float32"


def describe_devices(strategy):
    """Returns the devices of a strategy in words."""
    names = [tf.DeviceSpec.from_string(name).device_type for name in strategy.extended.worker_devices]
    return f"{len(names)} x {names[0]}" + (", mirrored" if len(names) > 1 else "")
