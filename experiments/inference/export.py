"""Exports the model of a run, or a file of weights, for use without this project."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convnext.backbone import ConvNeXt
from convnext.segmentation import Segmenter
from experiments.config import SPLIT_FIELDS, DataConfig, height_and_width, parse_size
from experiments.data.sources import open_source
from experiments.data.values import Reading
from experiments.errors import RunError, UserError
from experiments.finished_run import (
    check_no_image_settings,
    config_of,
    find_model,
    find_segmenter,
    is_multi_label_classifier,
    read_model,
    read_segmenter,
    recorded_classes,
    recorded_config,
)
from experiments.inference.comparison import images_of, largest_difference, sample_photographs
from experiments.inference.formats import FORMATS, IMAGES, Serving, format_by_suffix
from experiments.io import appearing, new_output
from experiments.provenance import versions
from experiments.training.workdir import CONFIG, write_json
from experiments.types import Log

LIBRARIES = ("keras", "tensorflow", "onnx", "onnxruntime", "tf2onnx")


def describe(
    serving: Serving,
    path: pathlib.Path,
    data: DataConfig | None,
    classes: Sequence[str] | None,
    numbers: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Returns the facts about an exported model, for its JSON file.

    Args:
        serving: the `Serving`.
        path: of the Keras model.
        data: the `DataConfig` of its run, or None if there is no record of one.
        classes: names of the classes, or None.
        numbers: those of the classes in masks, or None.
    """
    model, channels = serving.model, serving.shape[-1]
    encoder = getattr(model, "backbone", model)
    facts: dict[str, Any] = {
        "model": f"{type(model).__name__}, depths {list(encoder.depths)}, channels {list(encoder.dims)}",
        "weights": path.name,
        "input": {
            "name": IMAGES,
            "shape": serving.axes,
            "dtype": serving.input_dtype,
            "values": "{:g} to {:g}".format(*serving.value_range)
            if serving.normalization
            else "normalized: (value - mean) / std, of values in [0, 1]",
            "channels": {1: "grey", 3: "red, green, blue"}.get(channels, f"{channels} channels"),
            "smallest_side": 1 if encoder is not model else model.total_stride,
        },
        "output": {"name": serving.outputs, "shape": serving.output_axes, "dtype": "float32"},
        "preprocessing": _preprocessing(serving, data),
    }
    if classes and serving.outputs != "features":
        facts["classes"] = list(classes)
    if numbers:
        facts["class_numbers"] = list(numbers)
    return facts


def _preprocessing(serving: Serving, data: DataConfig | None) -> dict[str, Any]:
    """Returns the preprocessing: the view of the image, left to the caller, and the normalization."""
    if data is None:
        return {"normalization": "outside", "note": "mean, std and size are not recorded: use those of the training"}
    height, width = data.size
    centre = "the shorter side" if height == width else f"the largest window of the aspect ratio {width}:{height}"
    view = "the whole image" if data.whole_view else f"the centre, {data.evaluation_crop:g} of {centre}"
    facts = {
        "normalization": "inside" if serving.normalization else "outside",
        "mean": list(data.mean),
        "std": list(data.std),
        "orientation": "upright, as EXIF says",
    }
    if isinstance(serving.model, Segmenter):
        return {**facts, "view": "the whole image, at its own size"}
    return {
        **facts,
        "view": view,
        "resize": "bicubic, with antialiasing",
        "image_size": data.image_size if height == width else [height, width],
    }


INSIDE, OUTSIDE = "inside", "outside"
FIXED, FREE = "fixed", "free"
TOLERANCE = 1e-4
NUM_IMAGES = 16
# Free sizes are also tested with these additional pixels: sides that differ and are divisible by no stride.
ODD = (37, 21)


@dataclasses.dataclass(frozen=True)
class Request:
    """What to export.

    Args:
        format: one of `FORMATS`.
        outputs: one of `OUTPUTS`; empty for the logits of a classifier and the features of an encoder.
        input_size: `fixed` (that of the run), `free`, or a number of pixels, or `HEIGHT,WIDTH`.
        preprocessing: `outside` takes normalized images; `inside` takes pixels in [0, 255] and normalizes them.
        input_dtype: of the pixels that `inside` takes, `uint8` or `float32`.
    """

    format: str
    outputs: str = ""
    input_size: str = FIXED
    preprocessing: str = OUTSIDE
    input_dtype: str = "uint8"


def run(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    request: Request,
    data: str = "",
    data_dir: str = "",
    num_images: int = NUM_IMAGES,
    tolerance: float = TOLERANCE,
    images: Mapping[str, Any] | None = None,
    log: Log = print,
) -> float:
    """Exports a model, if the exported model gives the same outputs as the Keras model.

    Args:
        model: workdir of a run, or a file that `convnext.create_from_weights` reads.
        output: path of the new file, or of the new folder of a SavedModel; `OUTPUT.json` describes it.
        request: a `Request`.
        data: `digits`, `tfds:NAME` or `folder:PATH`, images to compare on; empty for windows of the two photographs
            that scikit-learn ships.
        data_dir: where TensorFlow Datasets keeps its data; empty for its own default.
        num_images: number of images to compare on.
        tolerance: largest absolute difference.
        images: how images are prepared for weights without a run, see `finished_run.config_of`.
        log: function that takes a line for the user.

    Returns:
        The largest difference.

    Raises:
        UserError: if the model cannot be read, or the request, the images or the output do not fit.
        RunError: if the exported model differs from the Keras model by more; no file is left.
    """
    segmenter = find_segmenter(model)
    path = segmenter or find_model(model)
    if segmenter:
        check_no_image_settings(path, images)
        keras_model, _, table = read_segmenter(path)
        numbers = table.numbers
    else:
        keras_model, numbers = read_model(path), None
    config = recorded_config(path)
    if images:
        config = config_of(path, keras_model, data or "digits", data_dir, images=images, log=log)
    recorded = config.data if config else None
    serving = make_serving(keras_model, request, recorded, path)
    kind = FORMATS[request.format]
    kind.check(request.format, keras_model)
    if not kind.suffix and (named := format_by_suffix(output)):
        raise UserError(f"--output={output} has the suffix of {named}, but --format is {request.format}: change one.")
    output = new_output(output, [kind.suffix] if kind.suffix else ())
    description = new_output(f"{output}.json")
    settings = recorded or _neutral(keras_model)
    batches = _images(serving, settings, data, data_dir, num_images)

    facts = describe(serving, path, recorded, recorded_classes(path), numbers)
    with appearing(description) as facts_file, appearing(output) as model_file:
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
        kind.write(serving, model_file, texts)
        exported = kind.load(model_file)
        difference = float(np.max([largest_difference(exported, serving, images, settings) for images in batches]))
        compared = f"{len(batches[0])} images of {data or 'two photographs'}"
        log(f"largest difference from Keras on {compared}: {difference:.2g}")
        if not difference <= tolerance:
            raise RunError(
                f"{request.format} differs from Keras by {difference:.2g}, more than --tolerance={tolerance:g}: "
                f"nothing is written to {output}."
            )
        comparison = {"images": compared, "largest_difference": difference}
        write_json(
            facts_file, {"format": request.format, **facts, "comparison": comparison, "versions": versions(LIBRARIES)}
        )
    log(f"{output}: {serving.outputs} of {path}, described in {description.name}")
    return difference


def make_serving(model: ConvNeXt | Segmenter, request: Request, data: DataConfig | None, path: pathlib.Path) -> Serving:
    """Returns the `Serving` of a request.

    Args:
        model: the `ConvNeXt`.
        request: the `Request`.
        data: the `DataConfig` of its run, or None if there is no record of one.
        path: of the model, for messages.

    Raises:
        UserError: if the model has no such output, the size is invalid, or the request needs facts that are not
            recorded.
    """
    is_segmenter = isinstance(model, Segmenter)
    has_logits = is_segmenter or model.include_top
    outputs = request.outputs or ("logits" if has_logits else "features")
    if is_segmenter and outputs == "features":
        raise UserError(f"{path} has logits and probabilities of pixels: export encoder.keras beside it for features.")
    if outputs != "features" and not has_logits:
        raise UserError(f"{path} is an encoder, which has no {outputs}: use --outputs=features.")
    inside = request.preprocessing == INSIDE
    if data is None and inside:
        raise UserError(
            f"{path} has no {CONFIG} with mean and std beside it: use --preprocessing=outside, or give --image_preset."
        )
    ends = (data and data.value_range) or (0.0, 255.0)
    if inside and ends != (0.0, 255.0) and request.input_dtype == "uint8":
        raise UserError(f"the values of the images range from {ends[0]:g} to {ends[1]:g}: use --input_dtype=float32.")
    return Serving(
        model,
        outputs,
        _size(model, request.input_size, data, path),
        normalization=(data.mean, data.std) if data and inside else None,
        input_dtype=request.input_dtype if inside else "float32",
        multi_label=has_logits and is_multi_label_classifier(path),
        value_range=ends,
    )


def _size(
    model: ConvNeXt | Segmenter, text: str, data: DataConfig | None, path: pathlib.Path
) -> tuple[int | None, int | None]:
    if text == FREE:
        return None, None
    if text == FIXED and data is None:
        raise UserError(f"{path} has no {CONFIG} with the size beside it: use --input_size=free or a number.")
    if text != FIXED and not text[:1].isdecimal():
        raise UserError(f"--input_size={text} is neither fixed, nor free, nor a number of pixels.")
    size = data.size if data and text == FIXED else height_and_width(parse_size(text, "--input_size"))
    if min(size) < model.total_stride and not isinstance(model, Segmenter):
        raise UserError(f"--input_size={text}: the smallest size of this model is {model.total_stride}.")
    return size


def _neutral(model: ConvNeXt | Segmenter) -> DataConfig:
    """Returns a `DataConfig` for the comparison if none is recorded: pixels between -1 and 1."""
    channels = model.image_shape[-1]
    sides: dict[str, Any] = {"image_size": 7 * model.total_stride, "channels": channels}
    return DataConfig(**sides, mean=(0.5,) * channels, std=(0.5,) * channels)


def _images(serving: Serving, settings: DataConfig, data: str, data_dir: str, count: int) -> list[np.ndarray]:
    """Returns arrays of images to compare on, one for each tested size."""
    sizes: list[tuple[Any, Any]] = [serving.size]
    if serving.size == (None, None):
        height, width = settings.size
        sizes = [settings.size, (height + ODD[0], width + ODD[1])]
    channels = serving.shape[-1]
    if not data:
        return [sample_photographs(count, size, channels) for size in sizes]
    changes: dict[str, Any] = {"source": data, "dir": data_dir, "labels_file": "", **dict.fromkeys(SPLIT_FIELDS, "")}
    config = dataclasses.replace(settings, **changes, validation_share=0.0, test_share=0.0)
    return [images_of(open_source(config), count, size, Reading.of(config)) for size in sizes]
