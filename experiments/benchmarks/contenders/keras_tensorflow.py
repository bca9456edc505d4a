"""Keras on TensorFlow: the step of the training loop itself."""

import dataclasses

import tensorflow as tf

from experiments.benchmarks.contenders.form import Contender, random_batch, random_matrices
from experiments.benchmarks.contenders.keras_model import example_losses, make_model_and_optimizer
from experiments.training.distributed.strategy import make_strategy
from experiments.training.step import make_training_step


class KerasTensorFlowContender(Contender):
    """See `Contender`; `execution` is `sparse` or `dense`."""

    def __init__(self, settings, ratio, execution):
        strategy = make_strategy(dataclasses.replace(settings.config(ratio), distribution="none"))
        with strategy.scope():
            model, optimizer = make_model_and_optimizer(settings, ratio, execution)

        def losses(batch):
            return example_losses(model, batch["images"], batch["visible"])

        self._step = make_training_step(strategy, model, optimizer, losses)
        self._dtype = settings.precision
        self._gpu = next(iter(tf.config.list_physical_devices("GPU")), None)
        if self._gpu:
            self.device = tf.config.experimental.get_device_details(self._gpu).get("device_name", "GPU")
        images, visible = random_batch(settings, ratio)
        with tf.device(strategy.extended.worker_devices[0]):
            weights = tf.ones(len(images))
            self._batch = {"images": tf.constant(images), "visible": tf.constant(visible), "weights": weights}

    def run(self, steps):
        for _ in range(steps):
            metrics = self._step(self._batch)
        tf.test.experimental.sync_devices()
        return float(metrics["loss"])

    def matrix_product(self, size):
        left, right = [tf.cast(matrix, self._dtype) for matrix in random_matrices(size)]

        def multiply(times):
            product = left
            for _ in range(times):
                product = tf.matmul(product, right)
            tf.test.experimental.sync_devices()

        return multiply

    def device_peak(self):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if self._gpu else None
