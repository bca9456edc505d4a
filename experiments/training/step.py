"""One optimizer step over all devices."""

import contextlib
import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from convnext.layers import StochasticDepth, drawn
from convnext.remat import rematerialized
from convnext.tf_cpu.devices import compiled_chains, portable
from experiments.training.ema import AveragedWeights
from experiments.training.loss_scale import LossScale
from experiments.types import Batch, Metrics

# For each value of `Config.compile`, the context that decides whether chains of operations are compiled.
CHAINS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "auto": contextlib.nullcontext,  # only on CPUs
    "none": functools.partial(portable, "compiled_chains"),
    "chains": compiled_chains,
    "step": functools.partial(portable, "compiled_chains"),
}


def make_training_step(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    example_losses: Callable[[Batch], tf.Tensor],
    accumulation_steps: int = 1,
    clip_norm: float = 0.0,
    averages: AveragedWeights | None = None,
    loss_scale: LossScale | None = None,
    compilation: str = "auto",
    remat: str = "none",
) -> Callable[..., Metrics]:
    """Returns the function that takes one optimizer step.

    The gradient is that of the weighted mean loss over the whole batch, whatever the number of devices and of
    accumulation steps: each device sums over the parts of its share, and the sums are added up over the devices
    before they are clipped.

    With a loss scale, the gradient is computed from the scaled loss and divided by the scale after the sum. A step
    whose summed gradient is not finite changes neither the weights nor the state of the optimizer nor the averages.

    Args:
        strategy: the `tf.distribute.Strategy` under which model and optimizer were made.
        model: the model; its trainable variables are optimised.
        optimizer: built, without clipping and accumulation of its own; it `TakesSums`.
        example_losses: function from a batch to the loss of each example, `(B,)` float32.
        accumulation_steps: parts into which a device splits its share of the batch.
        clip_norm: global norm to which larger gradients are clipped; 0 does not clip.
        averages: the `AveragedWeights` to update after the step; None for none.
        loss_scale: the `LossScale` of float16, for which the optimizer is a `FusedAdamW`; None for no scaling.
        compilation: which parts XLA compiles, see `Config.compile`.
        remat: what is recomputed for the gradient, see `ModelConfig.remat`.

    Returns:
        A `tf.function` from a (distributed) batch to a dictionary of scalars: `loss`, `unreadable` (number of
        examples of weight 0), with clipping `gradient_norm` (before clipping; NaN for a skipped step), and with
        a loss scale `loss_scale` (of this step) and `skipped_steps` (1 if it was skipped). A second argument, a
        number for each worker, is returned as `requests`, summed over all replicas.
    """
    variables = model.trainable_variables
    tensors = [variable.value for variable in variables]

    def gradient_sums(batch: Batch) -> tuple[tf.Tensor, ...]:
        with CHAINS[compilation](), rematerialized(remat):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(example_losses(batch) * batch["weights"])
                scaled = loss * loss_scale.scale if loss_scale else loss
            return (*tape.gradient(scaled, tensors), loss)

    def replica_step(batch: Batch, request: tf.Tensor | None) -> tuple[list[tf.Tensor], Metrics]:
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        weight = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(batch["weights"]))
        # Dividing the few example weights turns the sums below into means.
        shares = {**batch, "weights": batch["weights"] / tf.maximum(weight, 1.0)}
        function = _compiled(gradient_sums, model) if compilation == "step" else gradient_sums
        *gradients, loss = _sum_over_parts(function, shares, accumulation_steps)
        metrics = {"loss": context.all_reduce(tf.distribute.ReduceOp.SUM, loss)}
        metrics["unreadable"] = tf.cast(batch["weights"].shape[0] * replicas, tf.float32) - weight
        if request is not None:
            request = tf.identity(request)  # on this device
            metrics["requests"] = context.all_reduce(tf.distribute.ReduceOp.SUM, request)
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if loss_scale:
            gradients, metrics["skipped_steps"] = loss_scale.unscaled(gradients)
            metrics["loss_scale"] = tf.identity(loss_scale.scale)
        if clip_norm:
            gradients, norm = tf.clip_by_global_norm(gradients, clip_norm)
            if loss_scale:
                norm = tf.where(metrics["skipped_steps"] > 0.0, float("nan"), norm)
            metrics["gradient_norm"] = norm
        return gradients, metrics

    def apply(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, variables)

    @tf.function(autograph=False)
    def training_step(batch: Batch, request: tf.Tensor | None = None) -> Metrics:
        gradients, metrics = strategy.run(replica_step, args=(batch, request))
        # The values are the same on every device.
        metrics = tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], metrics)
        skipped = metrics.get("skipped_steps")
        with optimizer.skipping(skipped) if loss_scale else contextlib.nullcontext():
            strategy.run(apply, args=(gradients,))
        if loss_scale:
            loss_scale.update(skipped)
        if averages:
            averages.update(skipped)
        return metrics

    return training_step


def _compiled(
    function: Callable[[Batch], tuple[tf.Tensor, ...]], model: keras.Model
) -> Callable[[Batch], tuple[tf.Tensor, ...]]:
    """Returns a function of a batch compiled by XLA, for the device that is being traced and its variables."""
    # Stochastic depth is drawn outside, because XLA would draw different numbers from the same seeds.
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, StochasticDepth) and layer.rate > 0.0]

    @tf.function(jit_compile=True, autograph=False)
    def compiled(batch: Batch, draws: list[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        with drawn(layers, draws):
            return function(batch)

    return lambda batch: compiled(batch, [layer.draw(batch["weights"].shape[0]) for layer in layers])


def _sum_over_parts(
    function: Callable[[Batch], tuple[tf.Tensor, ...]], batch: Batch, num_parts: int
) -> tuple[tf.Tensor, ...]:
    """Splits a batch into parts, applies the function to one after the other, and sums the results."""
    if num_parts == 1:
        return function(batch)
    part_size = batch["weights"].shape[0] // num_parts  # without a rest, see `check_batch`

    def part(i: int | tf.Tensor) -> Batch:
        pieces = {name: value[i * part_size : (i + 1) * part_size] for name, value in batch.items()}
        # A compiled function needs static shapes.
        return {name: tf.ensure_shape(piece, (part_size, *piece.shape[1:])) for name, piece in pieces.items()}

    def add(i: tf.Tensor, sums: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        return i + 1, tuple(a + b for a, b in zip(sums, function(part(i))))

    # A loop, because parts in one graph could run at once and need the memory of all.
    _, sums = tf.while_loop(
        lambda i, _: i < num_parts, add, (tf.constant(1), tuple(function(part(0)))), parallel_iterations=1
    )
    return sums
