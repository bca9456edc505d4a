"""Normalizations, layer scale, stochastic depth."""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from convnext.tf_cpu.devices import compiles_chains
from convnext.tf_cpu.fusion import fused
from convnext.types import Shape, Tensor

EPSILON = 1e-6  # of every normalization in the published models
ACTIVATIONS = ("gelu", "gelu_tanh")  # exact, as in the published models, or approximated by tanh


def check_layer_arguments(arguments: Mapping[str, Any]) -> None:
    """Raises TypeError unless the arguments of a layer that narrows one of Keras are those of every layer."""
    if unknown := set(arguments) - {"name", "dtype", "trainable"}:
        raise TypeError(f"Unknown arguments: {', '.join(sorted(unknown))}.")


@keras.saving.register_keras_serializable(package="convnext")
class LayerNormalization(keras.layers.LayerNormalization):
    """Layer normalization over the channels, `(B, ..., C)`.

    Where chains are compiled, as with TensorFlow on a CPU, it is `fused`; elsewhere it is the framework's.

    Args:
        epsilon: added to the variance; by default that of the published models.
        **kwargs: `name`, `dtype` and `trainable` of the layer.
    """

    def __init__(self, epsilon: float = EPSILON, **kwargs: Any) -> None:
        check_layer_arguments(kwargs)
        super().__init__(epsilon=epsilon, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        if not compiles_chains():
            return super().call(inputs)
        return fused(_channel_normalization(self.epsilon))(inputs, *in_float32(self.gamma, self.beta))

    def get_config(self) -> dict[str, Any]:
        return {**keras.layers.Layer.get_config(self), "epsilon": self.epsilon}


@functools.cache  # one function an epsilon, which is compiled once
def _channel_normalization(epsilon: float) -> Callable[..., Tensor]:
    def normalize(inputs: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """What `LayerNormalization` computes, of `(B, ..., C)`, with `gamma` and `beta` `(C,)` float32."""
        values = ops.cast(inputs, "float32")
        mean, variance = ops.moments(values, axes=-1, keepdims=True)
        return ops.cast((values - mean) * ops.rsqrt(variance + epsilon) * gamma + beta, inputs.dtype)

    return normalize


def in_float32(*variables: Tensor) -> list[Tensor]:
    """The values of variables, unrounded under every precision policy."""
    return [ops.cast(variable, "float32") for variable in variables]


def gelu(x: Tensor, activation: str = "gelu", training: bool | None = None) -> Tensor:
    """GELU of any tensor.

    JAX's own exact GELU rounds within a half precision, takes twice the time and keeps an intermediate result for the
    backward pass. There, this one computes in float32 and, in training, keeps only its input.

    Args:
        x: of any shape.
        activation: one of `ACTIVATIONS`.
        training: whether a gradient will be asked for. Forward-mode derivatives are those of `training=False`.
    """
    if activation == "gelu_tanh" or keras.backend.backend() != "jax":
        return keras.activations.gelu(x, approximate=activation == "gelu_tanh")
    return _gelu_with_gradient(x) if training else _exact_gelu(x)


def _exact_gelu(x: Tensor) -> Tensor:
    values = ops.cast(x, "float32")
    return ops.cast(values * _normal_probability(values), x.dtype)


def _normal_probability(values: Tensor) -> Tensor:
    """The probability that a standard normal variable is at most as large, in float32."""
    return 0.5 * (1.0 + ops.erf(values * math.sqrt(0.5)))


@ops.custom_gradient
def _gelu_with_gradient(x: Tensor) -> Any:
    def gradient(upstream: Tensor) -> Tensor:
        values = ops.cast(x, "float32")
        density = ops.exp(-0.5 * ops.square(values)) / math.sqrt(2.0 * math.pi)
        slope = _normal_probability(values) + values * density
        return ops.cast(ops.cast(upstream, "float32") * slope, x.dtype)

    return _exact_gelu(x), gradient


@keras.saving.register_keras_serializable(package="convnext")
class GlobalResponseNormalization(keras.layers.Layer):
    """Global response normalization (ConvNeXt V2, section 3 and algorithm 1).

    Each channel is scaled by its L2 norm over the positions of one image, relative to the mean norm of all
    channels:

        Gx = sqrt(sum_positions x^2 + 1e-6)
        Nx = Gx / (mean_channels Gx + 1e-6)
        y = gamma * (x * Nx) + beta + x

    gamma and beta start at zero, so a new layer is the identity. The statistics are float32 under every
    precision policy. The 1e-6 inside the root keeps the gradient finite where a channel is zero everywhere.

    Input: `(B, ..., C)`, any number of position axes between the batch and the channels.
    Output: the same shape.
    """

    def build(self, input_shape: Shape) -> None:
        channels = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=channels, initializer="zeros", autocast=False)
        self.beta = self.add_weight(name="beta", shape=channels, initializer="zeros", autocast=False)
        self.input_spec = keras.layers.InputSpec(axes={-1: input_shape[-1]})

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def call(self, inputs: Tensor, visible: Tensor | None = None) -> Tensor:
        """Normalizes `inputs`.

        Args:
            inputs: `(B, ..., C)`.
            visible: `(B, ..., 1)`, 1 at the positions that count in the statistics and 0 elsewhere, or None
                when all of them count.
        """
        return normalize_response(inputs, self.gamma, self.beta, visible)


def normalize_response(inputs: Tensor, gamma: Tensor, beta: Tensor, visible: Tensor | None = None) -> Tensor:
    """What `GlobalResponseNormalization` computes, of `(B, ..., C)`, with `gamma` and `beta` `(C,)` float32."""
    positions = tuple(range(1, len(inputs.shape) - 1))
    energy = ops.square(ops.cast(inputs, "float32"))
    if visible is not None:
        energy = energy * ops.cast(visible, "float32")
    norm = ops.sqrt(ops.sum(energy, axis=positions, keepdims=True) + EPSILON)
    response = norm / (ops.mean(norm, axis=-1, keepdims=True) + EPSILON)
    scale = ops.cast(gamma * response + 1.0, inputs.dtype)
    return inputs * scale + ops.cast(beta, inputs.dtype)


@keras.saving.register_keras_serializable(package="convnext")
class LayerScale(keras.layers.Layer):
    """Scales each channel by a learned factor (https://arxiv.org/abs/2103.17239, equation 4).

    Args:
        initial_value: of all factors.

    Input: `(..., C)`. Output: the same shape.
    """

    def __init__(self, initial_value: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_value = initial_value

    def build(self, input_shape: Shape) -> None:
        self.gamma = self.add_weight(
            name="gamma", shape=(input_shape[-1],), initializer=keras.initializers.Constant(self.initial_value)
        )
        self.input_spec = keras.layers.InputSpec(axes={-1: input_shape[-1]})

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def call(self, inputs: Tensor) -> Tensor:
        return inputs * self.gamma

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial_value": self.initial_value}


_draws: contextvars.ContextVar[Mapping[int, Tensor]] = contextvars.ContextVar("draws")


@contextlib.contextmanager
def drawn(layers: Sequence["StochasticDepth"], draws: Sequence[Tensor]) -> Iterator[None]:
    """Context in which layers use draws made before, for code in which `draw` would return other numbers."""
    token = _draws.set({id(layer): keep for layer, keep in zip(layers, draws)})
    try:
        yield
    finally:
        _draws.reset(token)


@keras.saving.register_keras_serializable(package="convnext")
class StochasticDepth(keras.layers.Layer):
    """Drops a residual branch for a random part of the images (https://arxiv.org/abs/1603.09382).

    In training each image of the batch keeps its branch with probability `1 - rate`, scaled by
    `1 / (1 - rate)`; otherwise, and always outside training, the branch passes as it is.

    Args:
        rate: probability to drop, in [0, 1).
        seed: integer or None, of the layer's own generator.

    Raises:
        ValueError: if the rate is outside [0, 1).
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"A stochastic depth rate lies in [0, 1), got {rate}.")
        self.rate = rate
        self.seed = seed
        if rate > 0.0:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def draw(self, count: int | Tensor) -> Tensor:
        """Draws for each of so many images whether it keeps its branch, `(B,)` booleans."""
        return keras.random.uniform((count,), dtype="float32", seed=self.seed_generator) >= self.rate

    @property
    def is_drawn(self) -> bool:
        """Whether this is within `drawn`, which has drawn for the layer."""
        return id(self) in _draws.get({})

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not training or self.rate == 0.0:
            return inputs
        keep = _draws.get()[id(self)] if self.is_drawn else self.draw(ops.shape(inputs)[0])
        keep = ops.reshape(keep, (-1,) + (1,) * (len(inputs.shape) - 1))
        return inputs * (ops.cast(keep, inputs.dtype) / (1.0 - self.rate))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
