"""Exporting the model of a run, or a file of weights, for use without this project."""

import dataclasses
import json

import numpy as np

from experiments.config import DataConfig
from experiments.data.sources import open_source
from experiments.errors import RunError, UserError
from experiments.export.comparison import images_of, largest_difference, sample_photographs
from experiments.export.description import describe, versions
from experiments.export.formats import FORMATS
from experiments.export.serving import Serving
from experiments.finished_run import find_model, read_model, recorded_classes, recorded_config
from experiments.io import appearing, new_output
from experiments.training.workdir import CONFIG, write_json

INSIDE, OUTSIDE = "inside", "outside"
FIXED, FREE = "fixed", "free"
TOLERANCE = 1e-4
NUM_IMAGES = 16
# Free sizes are tried with these pixels more, too: sides that differ, and that no stride divides.
ODD = (37, 21)


@dataclasses.dataclass(frozen=True)
class Request:
    """What to export.

    Args:
        format: one of `FORMATS`.
        outputs: one of `OUTPUTS`; empty for the logits of a classifier and the features of an encoder.
        input_size: `fixed` (that of the run), `free`, or a number of pixels.
        preprocessing: `outside` takes normalized images; `inside` takes pixels in [0, 255] and normalizes them.
        input_dtype: of the pixels that `inside` takes, `uint8` or `float32`.
    """

    format: str
    outputs: str = ""
    input_size: str = FIXED
    preprocessing: str = OUTSIDE
    input_dtype: str = "uint8"


def run(model, output, request, data="", data_dir="", num_images=NUM_IMAGES, tolerance=TOLERANCE, say=print):
    """Exports a model, if the exported one computes what the Keras model does.

    Args:
        model: workdir of a run, or a file that `convnext.create_from_weights` reads.
        output: path of the new file, or of the new folder of a SavedModel; `OUTPUT.json` describes it.
        request: a `Request`.
        data: `digits`, `tfds:NAME` or `folder:PATH`, images to compare on; empty for windows of the two photographs
            that scikit-learn ships.
        data_dir: where TensorFlow Datasets keeps its data; empty for its own default.
        num_images: number of images to compare on.
        tolerance: largest absolute difference.
        say: function that takes a line for the user.

    Returns:
        The largest difference.

    Raises:
        UserError: if the model cannot be read, or the request, the images or the output do not fit.
        RunError: if the exported model differs from the Keras model by more; nothing is left of it.
    """
    path = find_model(model)
    config = recorded_config(path)
    recorded = config and config.data
    keras_model = read_model(path)
    serving = make_serving(keras_model, request, recorded, path)
    kind = FORMATS[request.format]
    kind.check(request.format, keras_model)
    output = new_output(output, [kind.suffix] if kind.suffix else ())
    description = new_output(f"{output}.json")
    settings = recorded or _neutral(keras_model)
    batches = _images(serving, settings, data, data_dir, num_images)

    facts = describe(serving, path, recorded, recorded_classes(path))
    with appearing(description) as facts_file, appearing(output) as model_file:
        kind.write(serving, model_file, {name: _text(value) for name, value in facts.items()})
        exported = kind.load(model_file)
        difference = float(np.max([largest_difference(exported, serving, images, settings) for images in batches]))
        compared = f"{len(batches[0])} images of {data or 'two photographs'}"
        say(f"largest difference from Keras on {compared}: {difference:.2g}")
        if not difference <= tolerance:
            raise RunError(
                f"{request.format} differs from Keras by {difference:.2g}, more than --tolerance={tolerance:g}: "
                f"nothing is written to {output}."
            )
        comparison = {"images": compared, "largest_difference": difference}
        write_json(facts_file, {"format": request.format, **facts, "comparison": comparison, "versions": versions()})
    say(f"{output}: {serving.outputs} of {path}, described in {description.name}")
    return difference


def make_serving(model, request, data, path):
    """Returns the `Serving` of a request.

    Args:
        model: the `ConvNeXt`.
        request: the `Request`.
        data: the `DataConfig` of its run, or None if there is no record of one.
        path: of the model, for messages.

    Raises:
        UserError: if the model has no such output, the size is none, or what is asked for is not on record.
    """
    outputs = request.outputs or ("logits" if model.include_top else "features")
    if outputs != "features" and not model.include_top:
        raise UserError(f"{path} is an encoder, which has no {outputs}: use --outputs=features.")
    inside = request.preprocessing == INSIDE
    if data is None and inside:
        raise UserError(f"{path.parent} has no {CONFIG} with mean and std: use --preprocessing=outside.")
    return Serving(
        model,
        outputs,
        _size(model, request.input_size, data, path),
        normalization=(data.mean, data.std) if inside else None,
        input_dtype=request.input_dtype if inside else "float32",
    )


def _size(model, text, data, path):
    if text == FREE:
        return None, None
    if text == FIXED and data is None:
        raise UserError(f"{path.parent} has no {CONFIG} with the size: use --input_size=free or a number of pixels.")
    if text != FIXED and not text.isdecimal():
        raise UserError(f"--input_size={text} is neither fixed, nor free, nor a number of pixels.")
    side = data.image_size if text == FIXED else int(text)
    if side < model.total_stride:
        raise UserError(f"--input_size={text}: the smallest size of this model is {model.total_stride}.")
    return side, side


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)


def _neutral(model):
    """Returns a `DataConfig` to compare by where none is on record: pixels between -1 and 1."""
    channels = model.image_shape[-1]
    sides = {"image_size": 7 * model.total_stride, "channels": channels}
    return DataConfig(**sides, mean=(0.5,) * channels, std=(0.5,) * channels)


def _images(serving, settings, data, data_dir, count):
    """Returns arrays of images to compare on, one for each size that is tried."""
    sizes = [serving.size]
    if serving.size == (None, None):
        side = settings.image_size
        sizes = [(side, side), (side + ODD[0], side + ODD[1])]
    channels = serving.shape[-1]
    if not data:
        return [sample_photographs(count, size, channels) for size in sizes]
    source = open_source(DataConfig(source=data, dir=data_dir, validation_share=0.0, test_share=0.0))
    return [images_of(source, count, size, channels) for size in sizes]
