"""Exports a model as a SavedModel, as ONNX or as TFLite, for use without this project.

python -m launch.export --model=runs/own_finetuned --output=classifier.onnx
python -m launch.export --model=runs/own --format=saved_model --output=encoder --input_size=free
python -m launch.export --model=runs/own_finetuned --output=classifier.onnx --preprocessing=inside \
    --outputs=probabilities [--data=folder:PATH --images=100]

The format's own runtime loads the exported model, which is compared with the Keras model on photographs, or on the
images that --data names; the export is kept if no number differs by more than --tolerance. The batch size is free.
"""

import launch.environment  # noqa: F401, I001  (first)

from absl import flags

from experiments.errors import UserError
from experiments.inference import export
from experiments.inference.formats import FORMATS, INPUT_DTYPES, OUTPUTS, format_by_suffix
from launch.command import define_image_flags, image_settings, require_flags, run_command


def main(_: list[str]) -> None:
    """Exports what the flags name."""
    values, images = flags.FLAGS, image_settings()
    require_flags(model="runs/own", output="model.onnx")
    if values["input_dtype"].present and values.preprocessing != export.INSIDE:
        raise UserError("--input_dtype is for pixels that the model normalizes: add --preprocessing=inside.")
    if values.data_dir and not values.data:
        raise UserError("--data_dir is for the images that --data names, as in --data=tfds:NAME.")
    written = values.format or format_by_suffix(values.output)
    if not written:
        suffixes = " or ".join(kind.suffix for kind in FORMATS.values() if kind.suffix)
        raise UserError(
            f"--output={values.output} does not end with {suffixes}: change it, or add --format=saved_model."
        )
    request = export.Request(written, values.outputs or "", values.input_size, values.preprocessing, values.input_dtype)
    export.run(
        values.model, values.output, request, values.data, values.data_dir, values.images, values.tolerance, images
    )


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "Workdir of a finished run, or a file of weights.")
    flags.DEFINE_enum(
        "format",
        None,
        list(FORMATS),
        "Default: what the suffix of --output says, .onnx or .tflite; onnx needs the extra `export`.",
    )
    flags.DEFINE_string("output", None, "New file, or new folder of a SavedModel; OUTPUT.json describes it.")
    flags.DEFINE_enum("outputs", None, list(OUTPUTS), "Default: logits for a classifier, features for an encoder.")
    flags.DEFINE_string("input_size", export.FIXED, "`fixed`, that of the run; `free`; or pixels: 224, or 96,160.")
    flags.DEFINE_enum(
        "preprocessing", export.OUTSIDE, [export.INSIDE, export.OUTSIDE], "Where pixels in [0, 255] are normalized."
    )
    flags.DEFINE_enum("input_dtype", "uint8", list(INPUT_DTYPES), "Type of the pixels, with --preprocessing=inside.")
    flags.DEFINE_string("data", "", "Images to compare on, such as folder:PATH; by default two photographs.")
    flags.DEFINE_string("data_dir", "", "Folder of TensorFlow Datasets.")
    flags.DEFINE_integer("images", export.NUM_IMAGES, "Number of images to compare on.", lower_bound=1)
    flags.DEFINE_float("tolerance", export.TOLERANCE, "Largest accepted difference from Keras.", lower_bound=0.0)
    define_image_flags()
    run_command(main)
