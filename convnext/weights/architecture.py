"""Which model a set of weights belongs to, read from their names and shapes."""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from convnext.layers import EPSILON


class PretrainedError(ValueError):
    """Pretrained weights that cannot be found, cannot be read, or do not fit the model."""


OPTIONS = ("epsilon", "activation", "output_stride")
# What other libraries call the activations: timm's `act_layer`, Transformers' `hidden_act`.
ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
# What models of timm have by their names alone.
TIMM_ARGUMENTS: dict[str, dict[str, Any]] = {
    "convnext_xxlarge": {"norm_eps": 1e-5},
    "test_convnext": {"norm_eps": 1e-5, "act_layer": "gelu_tanh"},
    "test_convnext2": {"norm_eps": 1e-5, "act_layer": "gelu_tanh"},
}


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those arguments of a saved model's configuration that weights do not show."""
    return {name: config[name] for name in OPTIONS if name in config}


def read_options(path: pathlib.Path) -> dict[str, Any]:
    """Returns what weights do not show, as the configuration of Transformers, timm or OpenCLIP beside them has it.

    Empty where there is none, or one of something else. `head_epsilon` is that of a normalization before the logits
    that has another one than the rest.

    Raises:
        PretrainedError: if it asks for what `ConvNeXt` does not have.
    """
    file, config = path.with_name("config.json"), _read_json(path.with_name("config.json"))
    with contextlib.suppress(KeyError, TypeError):
        vision = _read_json(path.with_name("open_clip_config.json"))["model_cfg"]["vision_cfg"]
        config = config or {"architecture": vision["timm_model_name"]}
    if not isinstance(config.get("model_args") or {}, dict):
        return {}
    options: dict[str, Any] = {}
    if "convnext" in str(config.get("architecture", "")):  # timm
        name, _, _ = str(config["architecture"]).partition(".")
        arguments = {**TIMM_ARGUMENTS.get(name, {}), **(config.get("model_args") or {})}
        activation = arguments.get("act_layer", "gelu")
        options = {
            ours: arguments[theirs]
            for theirs, ours in (("norm_eps", "epsilon"), ("output_stride", "output_stride"))
            if arguments.get(theirs) is not None
        }
    elif "convnext" in str(config.get("model_type", "")):  # Transformers
        activation = config.get("hidden_act", "gelu")
        if "layer_norm_eps" in config:
            options["epsilon" if config["model_type"] == "dinov3_convnext" else "head_epsilon"] = config[
                "layer_norm_eps"
            ]
    else:
        return {}
    if activation not in ACTIVATION_NAMES:
        raise PretrainedError(f"{file}: the activation {activation!r} is not one of {', '.join(ACTIVATION_NAMES)}.")
    for name, kinds in (("epsilon", (int, float)), ("head_epsilon", (int, float)), ("output_stride", int)):
        if not isinstance(options.get(name, 1), kinds) or not options.get(name, 1) > 0:
            raise PretrainedError(f"{file}: {name} is a number above 0, got {options[name]!r}.")
    return {**options, "activation": ACTIVATION_NAMES[activation]}


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the object in a file, or an empty one where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The sizes of a ConvNeXt.

    Args:
        version: 1 or 2.
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
        channels: of the images.
        stem_stride: side in pixels of the patches of the stem.
        kernel_size: of the depthwise convolutions.
        num_classes: number of logits; 0 for an encoder without head.
        epsilon: of the layer normalizations; weights do not show it.
        activation: `gelu` or `gelu_tanh`; weights do not show it.
        output_stride: see `ConvNeXt`; weights do not show it.
    """

    version: int
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    channels: int
    stem_stride: int
    kernel_size: int
    num_classes: int
    epsilon: float = EPSILON
    activation: str = "gelu"
    output_stride: int | None = None

    @classmethod
    def of(
        cls,
        weights: Mapping[str, np.ndarray],
        path: str | os.PathLike = "the weights",
        options: Mapping[str, Any] | None = None,
    ) -> "Architecture":
        """Reads the architecture of `{our name: array}`.

        Args:
            weights: of the encoder, with or without head and decoder.
            path: what a message calls them.
            options: what weights do not show, as `read_options` returns it.

        Raises:
            PretrainedError: if a weight is missing that tells a size, or has another shape than that size gives it.
        """
        blocks = {tuple(name.split("/")[:2]) for name in weights if name.startswith("stage_") and "/block_" in name}
        num_stages = len({stage for stage, _ in blocks})
        try:
            stem = weights["stem/conv/kernel"]
            kernels = [weights[f"stage_{i}/block_0/depthwise_conv/kernel"] for i in range(num_stages)]
            if {kernel.ndim for kernel in (*kernels, stem)} != {4}:
                raise PretrainedError(f"{path} is not a ConvNeXt: its convolution kernels do not have 4 axes.")
            if not kernels or not all(kernel.size for kernel in (*kernels, stem)):
                raise PretrainedError(f"{path} is not a ConvNeXt: it has no blocks, or none with channels.")
            architecture = cls(
                version=2 if "stage_0/block_0/grn/gamma" in weights else 1,
                depths=tuple(sum(stage == f"stage_{i}" for stage, _ in blocks) for i in range(num_stages)),
                dims=tuple(kernel.shape[2] for kernel in kernels),
                channels=stem.shape[2],
                stem_stride=stem.shape[0],
                kernel_size=kernels[0].shape[0],
                num_classes=weights["head/bias"].size if "head/bias" in weights else 0,
                **(options or {}),
            )
            for name, shape in architecture._large_shapes():  # a few small weights stand for no large model
                if weights[name].shape != shape:
                    raise PretrainedError(
                        f"{path} is not a ConvNeXt: {name} has the shape {weights[name].shape}, not {shape}."
                    )
        except KeyError as error:
            raise PretrainedError(f"{path} does not have all weights of a ConvNeXt: it lacks {error}.") from error
        return architecture

    def _large_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yields `(name, shape)` of the weights that most of the memory goes to."""
        yield "stem/conv/kernel", (self.stem_stride, self.stem_stride, self.channels, self.dims[0])
        for i, (depth, dim) in enumerate(zip(self.depths, self.dims)):
            yield f"stage_{i}/block_0/depthwise_conv/kernel", (self.kernel_size, self.kernel_size, dim, 1)
            yield from ((f"stage_{i}/block_{j}/expansion/kernel", (dim, 4 * dim)) for j in range(depth))
        if self.num_classes:
            yield "head/kernel", (self.dims[-1], self.num_classes)
