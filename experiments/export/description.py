"""What a person needs to know to use an exported model."""

import importlib.metadata

from experiments.export.serving import IMAGES

LIBRARIES = ("keras", "tensorflow", "onnx", "onnxruntime", "tf2onnx")


def describe(serving, path, data, classes):
    """Returns the facts about an exported model, as JSON has them.

    Args:
        serving: the `Serving`.
        path: of the Keras model.
        data: the `DataConfig` of its run, or None if there is no record of one.
        classes: names of the classes, or None.
    """
    model, (height, width) = serving.model, serving.size
    channels = serving.shape[-1]
    facts = {
        "model": f"{type(model).__name__}, depths {list(model.depths)}, channels {list(model.dims)}",
        "weights": path.name,
        "input": {
            "name": IMAGES,
            "shape": ["batch", height or "height", width or "width", channels],
            "dtype": serving.input_dtype,
            "values": "0 to 255" if serving.normalization else "normalized: (pixel / 255 - mean) / std",
            "channels": "grey" if channels == 1 else "red, green, blue",
            "smallest_side": model.total_stride,
        },
        "output": {"name": serving.outputs, "shape": ["batch", serving.output_size], "dtype": "float32"},
        "preprocessing": _preprocessing(serving, data),
    }
    if classes and serving.outputs != "features":
        facts["classes"] = list(classes)
    return facts


def versions():
    """Returns the versions of the libraries that take part, `{name: version}`."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _preprocessing(serving, data):
    """What comes before the model: the view of the image, which is the caller's business, and the normalization."""
    if data is None:
        return {"normalization": "outside", "note": "no record of mean, std and size: those of the model's training"}
    view = "the whole image" if data.whole_view else f"the centre square, {data.evaluation_crop:g} of the shorter side"
    return {
        "normalization": "inside" if serving.normalization else "outside",
        "mean": list(data.mean),
        "std": list(data.std),
        "view": view,
        "resize": "bicubic, with antialiasing",
        "image_size": data.image_size,
    }
