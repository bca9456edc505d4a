"""The formats of exported models: how each is written, and run by its own runtime."""

import dataclasses
import functools
import importlib.util
import logging
import os
import pathlib
import tempfile
import typing
import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from convnext.backbone import pool
from convnext.segmentation import Segmenter
from convnext.tf_cpu.devices import portable
from convnext.types import Shape, Tensor
from experiments.errors import UserError

OUTPUTS = ("logits", "probabilities", "features")
INPUT_DTYPES = ("uint8", "float32")
IMAGES = "images"  # name of the input


@dataclasses.dataclass(frozen=True)
class Serving:
    """The function to export: from a batch of images to one output of a model.

    Args:
        model: a `ConvNeXt`, which without head has only features, or a `Segmenter`.
        outputs: one of `OUTPUTS`; features are those of the last stage, averaged over the positions.
        size: `(height, width)` of the images; None for free sizes.
        normalization: `(mean, std)` of the channels; None if the inputs are normalized images.
        value_range: of the pixels that are normalized.
        input_dtype: of the images.
        multi_label: whether the model is a multi-label classifier, whose probabilities are sigmoids.
    """

    model: keras.Model
    outputs: str
    size: tuple[int | None, int | None]
    normalization: tuple | None = None
    value_range: tuple[float, ...] = (0.0, 255.0)
    input_dtype: str = "float32"
    multi_label: bool = False

    @property
    def shape(self) -> Shape:
        """Shape of the images, `(None, H, W, channels)`."""
        return (None, *self.size, self.model.image_shape[-1])

    @property
    def axes(self) -> list[int | str]:
        """Shape of the images with named axes, `["batch", "height", "width", channels]` if all sides are free."""
        height, width = (side or name for side, name in zip(self.size, ("height", "width")))
        return ["batch", height, width, self.shape[-1]]

    @property
    def output_axes(self) -> list[int | str]:
        """Shape of the output: of each image, or of each pixel of a segmentation."""
        if isinstance(self.model, Segmenter):
            return [*self.axes[:-1], self.model.num_classes]
        return ["batch", self.model.dims[-1] if self.outputs == "features" else self.model.num_classes]

    @functools.cached_property
    def function(self) -> tf.types.experimental.PolymorphicFunction:
        """The `tf.function` to export, from images to `{name of the output: float32}`, see `apply`."""

        def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
            images = ops.cast(images, "float32")
            if self.normalization:
                (mean, std), (low, high) = self.normalization, self.value_range
                if (low, high) != (0.0, 255.0):
                    images = (tf.clip_by_value(images, low, high) - low) * (255.0 / (high - low))
                images = (images / 255.0 - tf.constant(mean)) / tf.constant(std)
            with portable():
                return {self.outputs: self.apply(images)}

        signature = [tf.TensorSpec(self.shape, self.input_dtype, name=IMAGES)]
        return tf.function(serve, input_signature=signature, autograph=False)

    def apply(self, images: Tensor) -> Tensor:
        """The output of the Keras model for normalized images, `(B, values)` or `(B, H, W, num_classes)` float32."""
        if self.outputs == "features":
            return pool(self.model.extract_features(images, training=False)[-1])
        logits = self.model(images, training=False)
        if self.outputs == "logits":
            return logits
        return ops.sigmoid(logits) if self.multi_label else ops.softmax(logits)


OPSET = 17  # of ONNX: read by every onnxruntime since 1.12
LARGEST_FILE = 2**31  # bytes: the limit of protobuf and flatbuffers


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Args:
        write: function of `Serving`, path, and the facts to record in the file.
        load: function from the path to a function of images `(B, H, W, channels)`, which returns the output.
        suffix: of its files; empty for a folder.
        packages: the packages that it needs beyond the project's own.
    """

    write: typing.Callable
    load: typing.Callable
    suffix: str = ""
    packages: tuple[str, ...] = ()

    def check(self, name: str, model: keras.Model) -> None:
        """Raises UserError if packages are missing, or the model is larger than a file of this format can be.

        Args:
            name: of the format.
            model: the model to export.
        """
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        if missing:
            raise UserError(
                f"--format={name} needs packages that are not installed: pip install {' '.join(missing)} "
                "(all of it is in the extra `export`)."
            )
        size = 4 * model.count_params()
        if self.suffix and size > 0.98 * LARGEST_FILE:
            raise UserError(
                f"--format={name}: the weights take {size / 2**30:.1f} GiB, but such files are limited to 2 GiB; "
                "use --format=saved_model."
            )


def write_saved_model(serving: Serving, path: str | os.PathLike[str], facts: dict[str, str]) -> None:
    """Writes a folder that `tf.saved_model.load` reads: `loaded.serve(images)`, and the signature `serving_default`."""
    del facts
    archive = keras.export.ExportArchive()
    archive.track(serving.model)
    archive.add_endpoint("serve", serving.function)
    archive.write_out(path, verbose=False)


def load_saved_model(path: str | os.PathLike[str]) -> Callable[[np.ndarray], np.ndarray]:
    """See `Format`."""
    loaded = tf.saved_model.load(path)

    def run(images: np.ndarray) -> np.ndarray:
        (values,) = loaded.serve(tf.constant(images)).values()
        return values.numpy()

    return run


def write_onnx(serving: Serving, path: str | os.PathLike[str], facts: dict[str, str]) -> None:
    """Writes an ONNX file, with `facts` (`{name: text}`) in its metadata."""
    import onnx
    import tf2onnx
    from onnx.tools.update_model_dims import update_inputs_outputs_dims

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = serving.function
    model, _ = tf2onnx.convert.from_function(
        function, function.input_signature, OPSET, custom_op_handlers={"Erfc": (_convert_erfc, [])}
    )
    model = update_inputs_outputs_dims(model, {IMAGES: serving.axes}, {serving.outputs: serving.output_axes})
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def load_onnx(path: str | os.PathLike[str]) -> Callable[[np.ndarray], np.ndarray]:
    """See `Format`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {IMAGES: images})[0]


def write_tflite(serving: Serving, path: str | os.PathLike[str], facts: dict[str, str]) -> None:
    """Writes a TFLite file, made from a SavedModel."""
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(serving, folder, facts)
        content = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    pathlib.Path(path).write_bytes(content)


def load_tflite(path: str | os.PathLike[str]) -> Callable[[np.ndarray], np.ndarray]:
    """See `Format`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of a separate package
        interpreter = tf.lite.Interpreter(str(path))
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(entry["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return run


FORMATS = {
    "saved_model": Format(write_saved_model, load_saved_model),
    "onnx": Format(write_onnx, load_onnx, ".onnx", ("onnx", "onnxruntime", "tf2onnx")),
    "tflite": Format(write_tflite, load_tflite, ".tflite"),
}


def format_by_suffix(output: str | os.PathLike[str]) -> str:
    """Returns the name of the format whose files have the suffix of a path; empty for none, as for a SavedModel."""
    suffix = pathlib.PurePath(output).suffix.lower()
    return next((name for name, kind in FORMATS.items() if kind.suffix and kind.suffix == suffix), "")


def _convert_erfc(graph: typing.Any, node: typing.Any, name: str, arguments: typing.Any, **kwargs: typing.Any) -> None:
    """Converts TensorFlow's Erfc, which ONNX lacks and the exact GELU is made of: `erfc(x) = 1 - erf(x)`."""
    del name, arguments, kwargs
    from tf2onnx.utils import make_name

    node.type = "Erf"
    difference = graph.insert_new_node_on_output("Sub", node.output[0], make_name(node.name))
    one = graph.make_const(make_name(node.name), np.array(1.0, np.float32))
    graph.replace_inputs(difference, [one.output[0], node.output[0]])
