"""Folders that Transformers and timm load by themselves: weights, configuration, preprocessing, model card."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from convnext.layers import EPSILON
from convnext.variants import CONVNEXT_V1, CONVNEXT_V2, Variant
from convnext.weights.architecture import Architecture, PretrainedError
from convnext.weights.names import POINTWISE_DIMS

BICUBIC = 3  # as Pillow numbers it


@dataclasses.dataclass(frozen=True)
class ImageSettings:
    """How images are prepared for a model.

    Args:
        size: height and width in pixels.
        mean: of each channel, in [0, 1].
        std: standard deviation of each channel.
        crop: share of the image that the centre crop keeps, in (0, 1].
        classes: names of the classes, in the order of the logits; empty where nobody knows them.
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop: float = 0.875
    classes: tuple[str, ...] = ()


def write_folder(
    tensors: Mapping[str, np.ndarray],
    folder: pathlib.Path,
    library: str,
    architecture: Architecture,
    images: ImageSettings,
) -> None:
    """Writes a folder that `from_pretrained` of Transformers, or `timm.create_model("local-dir:...")`, loads.

    Args:
        tensors: `{their name: array}`.
        folder: to write, or to write anew.
        library: `huggingface` or `timm`.
        architecture: of the model.
        images: how its images are prepared.

    Raises:
        PretrainedError: if the library has no such model.
    """
    if library == "huggingface":
        contents = {
            "config.json": _transformers_config(architecture, images),
            "preprocessor_config.json": _transformers_preprocessing(images),
        }
    else:
        contents = {"config.json": _timm_config(architecture, images)}
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(tensors, folder / "model.safetensors")
    texts = {name: json.dumps(content, indent=2) + "\n" for name, content in contents.items()}
    for name, text in {**texts, "README.md": _card(library, architecture, images)}.items():
        replace(folder / name, functools.partial(pathlib.Path.write_text, data=text, encoding="utf-8"))


def write_safetensors(tensors: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Writes a safetensors file, in one piece."""
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    replace(path, lambda temporary: safetensors.numpy.save_file(tensors, temporary, metadata={"format": "pt"}))


def replace(path: pathlib.Path, save: Callable[[pathlib.Path], Any]) -> None:
    """Calls `save` with a temporary path beside `path`, and puts the file in its place once it is whole."""
    temporary = path.with_name(f".unfinished-{path.name}")
    try:
        save(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _transformers_config(architecture: Architecture, images: ImageSettings) -> dict[str, Any]:
    if architecture.kernel_size != 7:
        raise PretrainedError(f"Transformers supports only kernel_size=7, got {architecture.kernel_size}.")
    if architecture.epsilon != EPSILON:
        raise PretrainedError(f"Transformers supports only epsilon={EPSILON}, got {architecture.epsilon}.")
    if architecture.output_stride is not None:
        raise PretrainedError("Transformers does not support output_stride.")
    kind = "ConvNext" if architecture.version == 1 else "ConvNextV2"
    head: dict[str, Any] = {}
    if architecture.num_classes:
        names = images.classes or tuple(f"LABEL_{i}" for i in range(architecture.num_classes))
        head["id2label"] = {str(i): name for i, name in enumerate(names)}
        head["label2id"] = {name: i for i, name in enumerate(names)}
    return {
        "architectures": [f"{kind}ForImageClassification" if architecture.num_classes else f"{kind}Model"],
        "model_type": kind.lower(),
        "depths": list(architecture.depths),
        "hidden_sizes": list(architecture.dims),
        "num_stages": len(architecture.depths),
        "num_channels": architecture.channels,
        "patch_size": architecture.stem_stride,
        "image_size": max(images.size),
        "hidden_act": {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}[architecture.activation],
        "layer_norm_eps": EPSILON,  # of the last normalization; Transformers' own default is 1e-12
        **head,
    }


def _transformers_preprocessing(images: ImageSettings) -> dict[str, Any]:
    common = {
        "do_resize": True,
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(images.mean),
        "image_std": list(images.std),
    }
    height, width = images.size
    if height == width:
        size = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": height}}
        return {**size, "crop_pct": images.crop, **common}
    # Its ConvNeXt processor makes squares; this one squeezes the whole image.
    return {"image_processor_type": "ViTImageProcessor", "size": {"height": height, "width": width}, **common}


def _timm_config(architecture: Architecture, images: ImageSettings) -> dict[str, Any]:
    if len(architecture.depths) != 4:
        raise PretrainedError(f"timm has models of 4 stages, not of {len(architecture.depths)}; Transformers has them.")
    prefix = "convnext" if architecture.version == 1 else "convnextv2"
    variants = {**CONVNEXT_V2, **CONVNEXT_V1} if architecture.version == 1 else CONVNEXT_V2
    own = Variant(architecture.depths, architecture.dims)
    published = [name for name, variant in variants.items() if variant == own]
    # The smallest sizes are built with 1x1 convolutions in the place of dense layers.
    base = published[0] if published else "atto" if architecture.dims in POINTWISE_DIMS else "tiny"
    arguments: dict[str, Any] = {} if published else {"depths": list(own.depths), "dims": list(own.dims)}
    changed = {
        "in_chans": (architecture.channels, 3),
        "patch_size": (architecture.stem_stride, 4),
        "kernel_sizes": (architecture.kernel_size, 7),
        "norm_eps": (architecture.epsilon, EPSILON),
        "act_layer": (architecture.activation, "gelu"),
        "output_stride": (architecture.output_stride, None),
    }
    arguments |= {name: value for name, (value, usual) in changed.items() if value != usual}
    shape = [architecture.channels, *images.size]
    return {
        "architecture": f"{prefix}_{base}",
        "num_classes": architecture.num_classes,
        "num_features": architecture.dims[-1],
        "model_args": arguments,
        "label_names": list(images.classes) or None,
        "pretrained_cfg": {
            "input_size": shape,
            "test_input_size": shape,
            "interpolation": "bicubic",
            "crop_pct": images.crop,
            "mean": list(images.mean),
            "std": list(images.std),
            "num_classes": architecture.num_classes,
            "first_conv": "stem.0",
            "classifier": "head.fc",
        },
    }


LOADING = {
    "huggingface": """from transformers import AutoImageProcessor, {auto}

processor = AutoImageProcessor.from_pretrained("FOLDER")
model = {auto}.from_pretrained("FOLDER")
""",
    "timm": """import timm

model = timm.create_model("local-dir:FOLDER", pretrained=True)
pyramid = timm.create_model("local-dir:FOLDER", pretrained=True, features_only=True)
""",
}


def _card(library: str, architecture: Architecture, images: ImageSettings) -> str:
    """Returns the model card: what it is, how images are prepared, how it is loaded."""
    task = "image-classification" if architecture.num_classes else "image-feature-extraction"
    auto = "AutoModelForImageClassification" if architecture.num_classes else "AutoModel"
    name = f"ConvNeXt{' V2' if architecture.version == 2 else ''}"
    sizes = f"depths {', '.join(map(str, architecture.depths))}; channels {', '.join(map(str, architecture.dims))}"
    head = f"A classifier of {architecture.num_classes:,} classes" if architecture.num_classes else "An encoder"
    height, width = images.size
    return f"""---
library_name: {"transformers" if library == "huggingface" else "timm"}
pipeline_tag: {task}
tags: [convnext, fcmae]
---

# {name}

{head}: {sizes}; stem stride {architecture.stem_stride}.
{"Classes: " + ", ".join(images.classes) + "." if images.classes else ""}
Images: {height}x{width} pixels, {architecture.channels} channels in [0, 1], mean {_numbers(images.mean)}, standard
deviation {_numbers(images.std)}, bicubic resize, centre crop of {images.crop:g}.

```python
{LOADING[library].format(auto=auto)}```
"""


def _numbers(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"
