"""The Keras candidates of the benchmark of training steps, on TensorFlow and JAX, and what all candidates share.

Each takes the step of pretraining, on the best device there is. A candidate imports its framework itself.
"""

import abc
import contextlib
import dataclasses
from typing import Any

import keras
import numpy as np

from convnext.remat import rematerialized
from convnext.tf_cpu.devices import REPLACEMENTS, portable
from convnext.types import Tensor
from experiments.config import Config
from experiments.models import make_fcmae
from experiments.optim.adamw import LayerwiseAdamW, make_adamw
from experiments.optim.param_groups import rule_table
from experiments.training.schedule import Schedule
from experiments.types import Batch
from fcmae import FCMAE
from fcmae.layout import gather_patches, split_patches
from fcmae.loss import reconstruction_loss, reconstruction_targets
from fcmae.masking import num_visible, patchify

PYTORCH = "pytorch"  # the candidate that is no Keras model
BACKENDS = ("tensorflow", "jax", "torch")
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # Keras's dtype policy of each precision
# What makes the step fast on TensorFlow and a CPU; a candidate can go without one. oneDNN is switched off by a variable
# of the environment, before TensorFlow is imported.
ABLATIONS = ("onednn", *REPLACEMENTS, "fused_adamw", "masked_only")


class Candidate(abc.ABC):
    """A model with its optimizer that takes training steps.

    Args:
        config: a `Config`, whose seed the weights, images and masks follow from.
        precision: one of `POLICIES`.
        ablation: one of `ABLATIONS` to go without, or an empty text.

    Attributes:
        device: the device in words; `CPU` where it is none of its own.
        note: what a reader of the figures has to know, or an empty text.
    """

    device = "CPU"
    note = ""

    @abc.abstractmethod
    def __init__(self, config: Config, precision: str, ablation: str = "") -> None: ...

    @abc.abstractmethod
    def run(self, steps: int) -> float:
        """Takes training steps, waits until the last has ended, and returns its loss."""

    def device_peak(self) -> int | None:
        """Returns the largest number of bytes that were allocated on the device; None for a CPU."""
        return None


def candidate_class(backend: str, name: str) -> type[Candidate]:
    """Returns the class of a candidate: `pytorch`, or an execution of the Keras model on a backend."""
    if name != PYTORCH and backend != "torch":
        return {"tensorflow": KerasTensorFlowCandidate, "jax": KerasJaxCandidate}[backend]
    from experiments.benchmarks import pytorch

    return pytorch.PyTorchCandidate if name == PYTORCH else pytorch.KerasTorchCandidate


def random_batch(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Returns images and masks, the same for every candidate.

    Returns:
        `(images, visible)`, float32: `(B, H, W, channels)` of a normal distribution, and `(B, L)`, 1 for visible
        patches and 0 for masked ones.
    """
    rng = np.random.default_rng(config.seed)
    batch = config.pretrain.batch_size
    images = rng.normal(size=(batch, *config.data.size, config.data.channels)).astype("float32")
    ranks = rng.random((batch, config.num_patches)).argsort(axis=1).argsort(axis=1)
    return images, (ranks < num_visible(config.num_patches, config.pretrain.mask_ratio)).astype("float32")


def make_model_and_optimizer(
    config: Config, precision: str, ablation: str = ""
) -> tuple[FCMAE, keras.optimizers.Optimizer]:
    """Returns `(model, optimizer)` as pretraining makes them."""
    keras.utils.set_random_seed(config.seed)
    model = make_fcmae(config, POLICIES[precision])
    # Lengths do not matter: a step takes the same time at any learning rate.
    schedule = Schedule(100, 10_000, 500, config.pretrain.base_learning_rate)
    variables = model.trainable_variables
    optimizer = make_adamw(variables, config.pretrain, schedule, rule_table(variables))
    if ablation == "fused_adamw":
        optimizer = LayerwiseAdamW.from_config(optimizer.get_config())
        optimizer.build(model.trainable_variables)
    return model, optimizer


def example_losses(model: FCMAE, images: Tensor, visible: Tensor, ablation: str = "") -> Tensor:
    """Returns the loss of each image, `(B,)` float32, as pretraining computes it but for the ablation."""
    with portable(ablation) if ablation in REPLACEMENTS else contextlib.nullcontext():
        if ablation != "masked_only":
            return model.image_losses(images, visible, training=True)
        _, hidden = split_patches(visible, model.num_visible)
        prediction = gather_patches(model.predict_patches(images, visible, training=True), hidden)
        patches = gather_patches(patchify(images, model.patch_size), hidden)
        return reconstruction_loss(prediction, reconstruction_targets(patches, model.normalize_targets))


class KerasTensorFlowCandidate(Candidate):
    """The step of the training loop itself; see `Candidate`."""

    def __init__(self, config: Config, precision: str, ablation: str = "") -> None:
        import tensorflow as tf

        from experiments.training.distributed.strategy import make_strategy
        from experiments.training.step import make_training_step

        self._tf = tf
        strategy = make_strategy(dataclasses.replace(config, distribution="none", logical_cpus=0))
        with strategy.scope():
            model, optimizer = make_model_and_optimizer(config, precision, ablation)

        def losses(batch: Batch) -> Tensor:
            return example_losses(model, batch["images"], batch["visible"], ablation)

        execution: dict[str, Any] = {"compilation": config.compile, "remat": config.model.remat}
        self._step = make_training_step(strategy, model, optimizer, losses, **execution)
        self._gpu = next(iter(tf.config.list_physical_devices("GPU")), None)
        if self._gpu:
            self.device = tf.config.experimental.get_device_details(self._gpu).get("device_name", "GPU")
        images, visible = random_batch(config)
        with tf.device(strategy.extended.worker_devices[0]):
            weights = tf.ones(len(images))
            self._batch = {"images": tf.constant(images), "visible": tf.constant(visible), "weights": weights}

    def run(self, steps: int) -> float:
        for _ in range(steps):
            metrics = self._step(self._batch)
        self._tf.test.experimental.sync_devices()
        return float(metrics["loss"])

    def device_peak(self) -> int | None:
        return self._tf.config.experimental.get_memory_info("GPU:0")["peak"] if self._gpu else None


class KerasJaxCandidate(Candidate):
    """One compiled step, whose state stays on the device; see `Candidate`."""

    def __init__(self, config: Config, precision: str, ablation: str = "") -> None:
        import jax
        import jax.numpy as jnp

        self._jax = jax
        model, optimizer = make_model_and_optimizer(config, precision, ablation)
        variables = model.trainable_variables

        def mean_loss(weights: list[jax.Array], images: jax.Array, visible: jax.Array) -> jax.Array:
            # What `stateless_call` does around `call`: the variables have the values that are handed in.
            scope = keras.StatelessScope(state_mapping=zip(variables, weights))
            with scope, rematerialized(config.model.remat):
                return jnp.mean(example_losses(model, images, visible, ablation))

        def step(
            state: tuple[list, list], images: jax.Array, visible: jax.Array
        ) -> tuple[tuple[list, list], jax.Array]:
            weights, optimizer_variables = state
            loss, gradients = jax.value_and_grad(mean_loss)(weights, images, visible)
            return optimizer.stateless_apply(optimizer_variables, gradients, weights), loss

        self._batch = [jnp.asarray(array) for array in random_batch(config)]
        # Weights, and the optimizer's moments and step. Donated, the arrays of the Keras variables end with step one.
        self._state = tuple([variable.value for variable in part] for part in (variables, optimizer.variables))
        self._step = jax.jit(step, donate_argnums=0)
        self._device = jax.devices()[0]
        if self._device.platform != "cpu":
            self.device = self._device.device_kind

    def run(self, steps: int) -> float:
        for _ in range(steps):
            self._state, loss = self._step(self._state, *self._batch)
        self._jax.block_until_ready(self._state)
        return float(loss)

    def device_peak(self) -> int | None:
        statistics = self._device.memory_stats() if self._device.platform != "cpu" else None
        return statistics["peak_bytes_in_use"] if statistics else None
