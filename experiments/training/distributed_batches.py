"""Training batches on the devices of a strategy."""

import tensorflow as tf

from experiments.data.pipeline import training_batches


def distribute_batches(strategy, split, preparation, batch_size, *arguments):
    """Returns the batches of `training_batches`, each divided among all devices.

    Each worker reads the share of a batch that its own devices work on.

    Args:
        strategy: the `tf.distribute.Strategy`.
        split: the examples.
        preparation: a `Preparation`.
        batch_size: images of a batch, over all devices.
        *arguments: of `training_batches`, from `seed` to `mixing`.

    Raises:
        UserError: if the workers cannot share the batches.
    """
    size = batch_size // strategy.num_replicas_in_sync

    def of_worker(context):
        reader, num_readers = context.input_pipeline_id, context.num_input_pipelines
        batches = training_batches(split, preparation, batch_size, *arguments, reader=reader, num_readers=num_readers)
        devices = strategy.num_replicas_in_sync // num_readers
        if devices > 1:
            batches = batches.rebatch(size, drop_remainder=True).prefetch(devices)
        # Workers would ask each other in every step whether one is at its end.
        return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    return strategy.distribute_datasets_from_function(of_worker)
