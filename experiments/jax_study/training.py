"""Training in JAX with all images on the device: many steps are one compiled scan, so that nothing waits for Python.

It is for small images, for which a step on an accelerator takes less time than launching it from Python. TensorFlow is
not needed.
"""

import json
import math
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import lax

from convnext.backbone import pool
from experiments.config import DataConfig, FinetuneConfig, PretrainConfig
from experiments.config.training import TrainingConfig
from experiments.optim.adamw import layerwise_adamw
from experiments.optim.param_groups import LayerDecay, rule_table
from fcmae import FCMAE
from fcmae.masking import sample_visible

ASPECTS = (3 / 4, 4 / 3)  # of random windows, height over width
FEATURE_BATCH = 1000


class Trainer:
    """Trains a Keras model, some steps a call.

    Args:
        model: the model, whose variables hold the result after `store`.
        training: its `TrainingConfig`, for the moments and decay of AdamW.
        loss_of: function from what `prepare` returns to the loss of each example, `(B,)`.
        prepare: function from a key, images `(B, H, W, C)` uint8 and labels `(B,)` to a tuple for `loss_of`.
        layer_decay: a `LayerDecay`; None for one rate for all variables.
    """

    def __init__(
        self,
        model: keras.Model,
        training: TrainingConfig,
        loss_of: Callable[..., jax.Array],
        prepare: Callable[[jax.Array, jax.Array, jax.Array], tuple],
        layer_decay: LayerDecay | None = None,
    ) -> None:
        self._variables, self._others = model.trainable_variables, model.non_trainable_variables
        rules = rule_table(self._variables, layer_decay=layer_decay)
        self._optimizer = layerwise_adamw(1.0, training, rules)  # the rate is replaced at every step
        self._optimizer.build(self._variables)
        self._fresh_moments = [np.asarray(variable.value) for variable in self._optimizer.variables]
        self._run = jax.jit(self._scan(loss_of, prepare), donate_argnums=0)
        self.restart()

    def restart(self) -> None:
        """Starts from the variables of the model, with new moments."""
        weights, others = ([variable.value for variable in group] for group in (self._variables, self._others))
        self.state = jax.tree.map(jnp.array, (weights, others, self._fresh_moments))

    def run(
        self, images: jax.Array, labels: np.ndarray, order: np.ndarray, rates: np.ndarray, key: jax.Array
    ) -> jax.Array:
        """Does some steps; their number is compiled in.

        Args:
            images: all images, `(N, H, W, C)` uint8.
            labels: their labels, `(N,)`.
            order: the images of each step, `(steps, B)`.
            rates: learning rate of each step, `(steps,)`.
            key: of the random draws.

        Returns:
            The mean loss of the steps, a scalar on the device.
        """
        self.state, losses = self._run(self.state, images, labels, order, rates, key)
        return losses.mean()

    def save(self, path: pathlib.Path, step: int, curve: list[dict]) -> None:
        """Writes the state to a file, with the number of steps done and what was measured."""
        temporary = path.with_name(f"new_{path.name}")
        np.savez(temporary, *map(np.asarray, jax.tree.leaves(self.state)), step=step, curve=json.dumps(curve))
        temporary.replace(path)

    def restore(self, path: pathlib.Path) -> tuple[int, list[dict]]:
        """Reads what `save` wrote, and returns the step and the measures; `(0, [])` if there is no file."""
        if not path.exists():
            return 0, []
        leaves, structure = jax.tree.flatten(self.state)
        with np.load(path) as saved:
            self.state = jax.tree.unflatten(structure, [jnp.array(saved[f"arr_{i}"]) for i in range(len(leaves))])
            return int(saved["step"]), json.loads(str(saved["curve"]))

    def store(self) -> None:
        """Assigns the weights to the variables of the model."""
        for variable, value in zip((*self._variables, *self._others), (*self.state[0], *self.state[1])):
            variable.assign(value)

    def _scan(self, loss_of: Callable, prepare: Callable) -> Callable:
        names = [variable.path.rsplit("/", 1)[-1] for variable in self._optimizer.variables]
        rate_at = names.index("learning_rate")

        def mean_loss(weights: list, others: list, batch: tuple) -> tuple[jax.Array, list]:
            values = [*zip(self._variables, weights), *zip(self._others, others)]
            with keras.StatelessScope(state_mapping=values) as scope:
                loss = jnp.mean(loss_of(*batch))
            return loss, [scope.get_current_value(variable) for variable in self._others]

        def run(
            state: tuple, images: jax.Array, labels: jax.Array, order: jax.Array, rates: jax.Array, key: jax.Array
        ) -> tuple[tuple, jax.Array]:
            def step(state: tuple, drawn: tuple) -> tuple[tuple, jax.Array]:
                weights, others, moments = state
                indices, rate, key = drawn
                batch = prepare(key, images[indices], labels[indices])
                (loss, others), gradients = jax.value_and_grad(mean_loss, has_aux=True)(weights, others, batch)
                moments = [*moments[:rate_at], rate, *moments[rate_at + 1 :]]
                weights, moments = self._optimizer.stateless_apply(moments, gradients, weights)
                return (weights, others, moments), loss

            return lax.scan(step, state, (order, rates, jax.random.split(key, len(order))))

        return run


def learning_rates(peak: float, total: int, warmup: int, final: float = 0.0) -> np.ndarray:
    """Returns the rate of each step, `(total,)` float32: a linear rise, then half a cosine."""
    steps = np.arange(total)
    cosine = final + (peak - final) * 0.5 * (1.0 + np.cos(np.pi * (steps - warmup) / (total - warmup)))
    return np.where(steps < warmup, peak * steps / max(warmup, 1), cosine).astype(np.float32)


def shuffled(indices: np.ndarray, steps: int, batch_size: int, seed: int) -> np.ndarray:
    """Returns the images of each step, `(steps, batch_size)`: one permutation after the other, without a gap."""
    generator = np.random.default_rng(seed)
    epochs = math.ceil(steps * batch_size / len(indices))
    order = np.concatenate([generator.permutation(indices) for _ in range(epochs)])
    return order[: steps * batch_size].reshape(steps, batch_size).astype(np.int32)


def pretraining(model: FCMAE, training: PretrainConfig, data: DataConfig) -> Trainer:
    """Returns the trainer of a masked autoencoder."""

    def prepare(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        view_key, mask_key = jax.random.split(key)
        noise = jax.random.uniform(mask_key, (len(images), model.num_patches))
        return normalized(_views(view_key, images, training), data), sample_visible(noise, training.mask_ratio)

    def loss_of(images: jax.Array, visible: jax.Array) -> jax.Array:
        return model.image_losses(images, visible, training=True)

    return Trainer(model, training, loss_of, prepare)


def finetuning(model: keras.Model, training: FinetuneConfig, data: DataConfig, num_classes: int) -> Trainer:
    """Returns the trainer of a classifier: crop, flip, Mixup, CutMix and label smoothing, of which no other is read."""
    depths = tuple(len(stage.blocks) for stage in model.stages)

    def prepare(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        view_key, mix_key = jax.random.split(key)
        targets = jax.nn.one_hot(labels, num_classes) * (1 - training.label_smoothing)
        targets = targets + training.label_smoothing / num_classes
        return _mixed(mix_key, normalized(_views(view_key, images, training), data), targets, training)

    def loss_of(images: jax.Array, targets: jax.Array) -> jax.Array:
        return -jnp.sum(targets * jax.nn.log_softmax(model(images, training=True)), axis=-1)

    return Trainer(
        model, training, loss_of, prepare, LayerDecay(depths, training.layer_decay, training.layer_decay_groups)
    )


def normalized(images: jax.Array, data: DataConfig) -> jax.Array:
    """Returns images of the range 0 to 255 as a model takes them."""
    mean, std = (np.asarray(value, np.float32) for value in (data.mean, data.std))
    return (jnp.clip(images, 0.0, 255.0) / 255.0 - mean) / std


def outputs(model: keras.Model, data: DataConfig, features: bool) -> Callable[[jax.Array], np.ndarray]:
    """Returns a function from all images, `(N, H, W, C)` uint8, to pooled features `(N, C)`, or logits, as arrays."""

    @jax.jit
    def compute(values: list[jax.Array], images: jax.Array) -> jax.Array:
        with keras.StatelessScope(state_mapping=[*zip(model.variables, values)]):
            images = normalized(images.astype(jnp.float32), data)
            return pool(model.extract_features(images)[-1]) if features else model(images, training=False)

    def of_all(images: jax.Array) -> np.ndarray:
        values = [variable.value for variable in model.variables]
        parts = (images[start : start + FEATURE_BATCH] for start in range(0, len(images), FEATURE_BATCH))
        return np.concatenate([np.asarray(compute(values, part)) for part in parts])

    return of_all


def _views(key: jax.Array, images: jax.Array, training: TrainingConfig) -> jax.Array:
    """Draws a window and a flip for each image."""
    view = _padded_view if training.crop_of(images.shape[1:3]) == "padded" else _resized_view
    return jax.vmap(lambda key, image: view(key, image, training))(jax.random.split(key, len(images)), images)


def _flipped(key: jax.Array, image: jax.Array) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image).astype(jnp.float32)


def _padded_view(key: jax.Array, image: jax.Array, training: TrainingConfig) -> jax.Array:
    flip_key, shift_key = jax.random.split(key)
    height, width, channels = image.shape
    margin = height // 8, width // 8
    framed = jnp.pad(_flipped(flip_key, image), ((margin[0],) * 2, (margin[1],) * 2, (0, 0)))
    start = jax.random.randint(shift_key, (2,), 0, np.array(margin) * 2 + 1)
    return lax.dynamic_slice(framed, (*start, 0), (height, width, channels))


def _resized_view(key: jax.Array, image: jax.Array, training: TrainingConfig) -> jax.Array:
    flip_key, area_key, aspect_key, place_key = jax.random.split(key, 4)
    smallest, largest = training.crop_scale
    area = jax.random.uniform(area_key, minval=smallest, maxval=largest)
    aspect = jnp.exp(jax.random.uniform(aspect_key, minval=math.log(ASPECTS[0]), maxval=math.log(ASPECTS[1])))
    sides = jnp.minimum(jnp.sqrt(area * jnp.stack([aspect, 1 / aspect])), 1.0)  # as shares of the image's
    start = jax.random.uniform(place_key, (2,)) * (1.0 - sides) * jnp.array(image.shape[:2])
    image = _flipped(flip_key, image)
    return jax.image.scale_and_translate(image, image.shape, (0, 1), 1 / sides, -start / sides, "cubic")


def _mixed(
    key: jax.Array, images: jax.Array, targets: jax.Array, training: FinetuneConfig
) -> tuple[jax.Array, jax.Array]:
    """Mixes a batch with itself in reverse order, by Mixup or CutMix, as `Mixing` does."""
    alphas = training.mixup_alpha, training.cutmix_alpha
    if not any(alphas) or not training.mix_probability:
        return images, targets
    whether, which, share_key, box_key = jax.random.split(key, 4)
    height, width = images.shape[1:3]
    mixup, cutmix = (jax.random.beta(share_key, alpha or 1.0, alpha or 1.0) for alpha in alphas)
    center = jax.random.uniform(box_key, (2,)) * jnp.array([height, width])
    half = jnp.sqrt(1.0 - cutmix) * jnp.array([height, width]) / 2
    rows, columns = (
        jnp.abs(jnp.arange(size) + 0.5 - center[axis]) < half[axis] for axis, size in enumerate((height, width))
    )
    own = 1.0 - (rows[:, None] & columns[None, :]).astype(jnp.float32)
    use_cutmix = alphas[1] and jax.random.uniform(which) < (training.switch_probability if alphas[0] else 1.0)
    own = jnp.where(use_cutmix, own, mixup)
    own = jnp.where(jax.random.uniform(whether) < training.mix_probability, own, 1.0)
    share = own.mean()
    own = own[None, :, :, None]
    return own * images + (1 - own) * images[::-1], share * targets + (1 - share) * targets[::-1]
