"""The base class of ConvNeXt models: stem, stages, features and classification head."""

import math
from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from convnext.blocks import ConvNextBlock, dense
from convnext.composite import CompositeModel, attributes
from convnext.layers import EPSILON, LayerNormalization
from convnext.stages import Downsampling, Stage, Stem
from convnext.types import Shape, Tensor
from convnext.variants import Variant


class ConvNeXt(CompositeModel):
    """The base class of `ConvNeXtV1` and `ConvNeXtV2`, which define their block in `make_block`.

    Args:
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
        num_classes: number of logits of the head.
        input_shape: `(H, W, channels)`; H and W may be None.
        include_top: whether the model ends in the classification head.
        stem_stride: side in pixels of the patches that the stem embeds.
        kernel_size: side of the kernels of the depthwise convolutions.
        drop_path_rate: stochastic depth rate of the last block; rates rise linearly from 0 over all blocks.
        dropout_rate: dropout rate of the pooled features, before the logits.
        epsilon: epsilon of every layer normalization; 1e-5 in some models of timm and OpenCLIP.
        activation: `gelu`, or `gelu_tanh` for its approximation, which some weights of timm were trained with.
        output_stride: pixels on the side of a position of the last stage, for dense prediction: from there on stages
            keep the resolution and dilate their convolutions, as in timm. None for `stem_stride * 2 ** (stages - 1)`.

    Raises:
        ValueError: if the sizes of the stages do not match, an option is unknown, or the input is smaller than one
            position of the last stage.
    """

    version = 0  # of the published models
    # The published sizes, `{name: Variant}`.
    MODEL_VARIANTS: dict[str, Variant] = {}

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        num_classes: int = 1000,
        input_shape: Shape = (None, None, 3),
        include_top: bool = True,
        stem_stride: int = 4,
        kernel_size: int = 7,
        drop_path_rate: float = 0.0,
        dropout_rate: float = 0.0,
        epsilon: float = EPSILON,
        activation: str = "gelu",
        output_stride: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(depths) != len(dims) or not depths:
            raise ValueError(f"depths and dims need one number for each stage, got {depths} and {dims}.")
        self.depths = tuple(depths)
        self.dims = tuple(dims)
        self.num_classes = num_classes
        self.image_shape = tuple(input_shape)
        self.include_top = include_top
        self.stem_stride = stem_stride
        self.kernel_size = kernel_size
        self.drop_path_rate = drop_path_rate
        self.dropout_rate = dropout_rate
        self.epsilon = epsilon
        self.activation = activation
        self.output_stride = output_stride
        self.strides, self.dilations = _strides_and_dilations(stem_stride, len(depths), output_stride)
        _check_input_size(self.image_shape, stem_stride, self.strides)

        self.stem = Stem(dims[0], stem_stride, epsilon, dtype=self.dtype_policy, name="stem")
        self.stages = self._make_stages()
        if include_top:
            self.head_norm = LayerNormalization(epsilon, dtype=self.dtype_policy, name="head_norm")
            self.head_dropout = keras.layers.Dropout(dropout_rate, dtype=self.dtype_policy, name="head_dropout")
            # Logits are float32 under every policy: a softmax over bfloat16 loses the small classes.
            self.head = dense(num_classes, "float32", "head")
        self.build((None, *self.image_shape))

    @classmethod
    def from_variant(cls, variant: str, **overrides: Any) -> Self:
        """Returns a new model of a published size.

        Args:
            variant: one of `MODEL_VARIANTS`.
            **overrides: any argument of the model.

        Raises:
            ValueError: if no variant has that name.
        """
        if variant not in cls.MODEL_VARIANTS:
            raise ValueError(f"No variant is called {variant!r}; there are {', '.join(cls.MODEL_VARIANTS)}.")
        size = cls.MODEL_VARIANTS[variant]
        return cls(**{"depths": size.depths, "dims": size.dims, **overrides})

    @property
    def total_stride(self) -> int:
        """Pixels of the image on the side of one position of the last stage: 32 for the published models."""
        return self.stem_stride * math.prod(self.strides)

    def make_block(self, **arguments: Any) -> ConvNextBlock:
        """Returns a new block; the arguments are those of `ConvNextBlock`."""
        raise NotImplementedError

    def _make_stages(self) -> list[Stage]:
        num_blocks = sum(self.depths)
        rates = [self.drop_path_rate * i / max(num_blocks - 1, 1) for i in range(num_blocks)]
        stages = []
        common: dict[str, Any] = {"epsilon": self.epsilon, "dtype": self.dtype_policy}
        for i, (depth, dim) in enumerate(zip(self.depths, self.dims)):
            first, dilation = sum(self.depths[:i]), self.dilations[i]
            blocks = [
                self.make_block(
                    dim=dim,
                    kernel_size=self.kernel_size,
                    drop_path_rate=rates[first + j],
                    activation=self.activation,
                    dilation=dilation,
                    name=f"block_{j}",
                    **common,
                )
                for j in range(depth)
            ]
            downsampling = None
            if i:
                # timm dilates the convolution between two stages from a dilation of 4 on, and by 2.
                between = 1 if dilation <= 2 else 2
                downsampling = Downsampling(dim, self.strides[i], between, name="downsampling", **common)
            stages.append(Stage(downsampling, blocks, dtype=self.dtype_policy, name=f"stage_{i}"))
        return stages

    def build(self, input_shape: Shape) -> None:
        self.stem.build(input_shape)
        for dim, stage in zip((self.dims[0], *self.dims), self.stages):
            stage.build((None, None, None, dim))
        if self.include_top:
            self.head_norm.build((None, self.dims[-1]))
            self.head.build((None, self.dims[-1]))
        self.input_spec = self.stem.input_spec
        self.built = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        _check_input_size(tuple(input_shape[1:]), self.stem_stride, self.strides)
        shape = self.stem.compute_output_shape(input_shape)
        for stage in self.stages:
            shape = stage.compute_output_shape(shape)
        return (shape[0], self.num_classes) if self.include_top else shape

    def compute_output_spec(self, images: Tensor, training: bool | None = None) -> keras.KerasTensor:
        dtype = self.head.compute_dtype if self.include_top else self.compute_dtype
        return keras.KerasTensor(self.compute_output_shape(images.shape), dtype=dtype)

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        """Applies the model.

        Args:
            images: `(B, H, W, channels)`, normalized as in training.
            training: whether stochastic depth and dropout are active.

        Returns:
            Logits `(B, num_classes)`, or without the head the last feature map `(B, h, w, C)`.
        """
        x = self.extract_features(images, training=training)[-1]
        return self.classify(x, training=training) if self.include_top else x

    def classify(self, feature_map: Tensor, training: bool | None = None) -> Tensor:
        """Applies the head to the last feature map, `(B, h, w, C)`: logits `(B, num_classes)`."""
        x = self.head_dropout(self.head_norm(pool(feature_map)), training=training)
        return self.head(x)

    def extract_features(self, images: Tensor, training: bool | None = None) -> list[Tensor]:
        """Returns the output of each stage: a list of `(B, h, w, C)`, strides 4, 8, 16, 32 as published.

        Raises:
            ValueError: if the images are smaller than one position of the last stage.
        """
        _check_input_size(tuple(images.shape[1:]), self.stem_stride, self.strides)
        x = self.stem(images)
        features = []
        for stage in self.stages:
            x = stage(x, training=training)
            features.append(x)
        return features

    def get_config(self) -> dict[str, Any]:
        sizes = attributes(self, "depths", "dims", "num_classes", "include_top", "stem_stride", "kernel_size")
        options = attributes(self, "drop_path_rate", "dropout_rate", "epsilon", "activation", "output_stride")
        return {**super().get_config(), **sizes, "input_shape": self.image_shape, **options}


def pool(feature_map: Tensor) -> Tensor:
    """Global average pooling: `(B, h, w, C)` to `(B, C)`."""
    return ops.mean(feature_map, axis=(1, 2))


def _strides_and_dilations(
    stem_stride: int, num_stages: int, output_stride: int | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the stride of each stage and the dilation of its blocks."""
    full = stem_stride * 2 ** (num_stages - 1)
    allowed = [stem_stride * 2**i for i in range(num_stages)]
    if output_stride not in (None, *allowed):
        raise ValueError(f"output_stride is one of {', '.join(map(str, allowed))}, or None, got {output_stride}.")
    total, limit = stem_stride, output_stride or full
    strides, dilations = [1], [1]
    for _ in range(1, num_stages):
        strides.append(2 if total < limit else 1)
        dilations.append(dilations[-1] * (2 // strides[-1]))
        total *= strides[-1]
    return tuple(strides), tuple(dilations)


def _check_input_size(input_shape: Shape, stem_stride: int, strides: Sequence[int]) -> None:
    if len(input_shape) != 3 or input_shape[-1] is None:
        raise ValueError(
            f"input_shape is (height, width, channels) with a known number of channels, got {input_shape}."
        )
    downsampling = math.prod(strides)
    smallest = min((side for side in input_shape[:2] if side is not None), default=None)
    if smallest is None or smallest >= stem_stride * downsampling:
        return
    fitting = smallest // downsampling
    advice = (
        f"use stem_stride={fitting} or less"
        if fitting
        else f"the smallest size for {len(strides)} stages is {downsampling}"
    )
    raise ValueError(
        f"An input of {input_shape[0]}x{input_shape[1]} is smaller than the total stride of "
        f"{stem_stride * downsampling}: {advice}."
    )
