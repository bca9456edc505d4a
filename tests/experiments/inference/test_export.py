"""Exported models, run by their own runtimes, against the saved Keras model."""

import dataclasses
import json

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from scipy.special import softmax

from experiments.errors import RunError, UserError
from experiments.inference import export, formats
from experiments.inference.export import Request, sample_photographs
from experiments.inference.formats import Serving
from experiments.models import make_classifier, make_encoder
from experiments.training.workdir import record_config, write_json
from tests.experiments.tiny import TWO_STAGES, Lines, tiny_config
from tests.small_models import randomize

CLASSES = ["t-shirt", "Stiefel", "žabot"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CONFIG = tiny_config(model=TWO_STAGES, data={"channels": 3, "mean": MEAN, "std": STD})
SIZES = {"fixed": [(32, 32)], "free": [(32, 32), (45, 70)]}
REQUESTS = [
    Request("onnx", "probabilities", "free", "inside"),
    Request("onnx", "features", "fixed", "outside"),
    Request("saved_model", "features", "free", "inside", "float32"),
    Request("saved_model", "", "fixed", "inside"),
    Request("tflite", "", "fixed", "outside"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A workdir with a classifier in it, and one with an encoder."""
    root = tmp_path_factory.mktemp("runs")
    for name, model in (("classifier", make_classifier(CONFIG, len(CLASSES))), ("encoder", make_encoder(CONFIG))):
        randomize({variable.path: variable for variable in model.weights})
        record_config(root / name, CONFIG, "finetune")
        model.save(root / name / f"{name}.keras")
    write_json(root / "classifier" / "summary.json", {"classes": CLASSES})
    return root


def model_of(request):
    return "encoder" if request.outputs == "features" else "classifier"


@pytest.fixture(scope="module", params=REQUESTS, ids=lambda request: f"{request.format}-{request.outputs}")
def exported(request, runs, tmp_path_factory):
    """`(request, path)` of what was exported."""
    wanted = request.param
    path = tmp_path_factory.mktemp("exported") / f"model{formats.FORMATS[wanted.format].suffix}"
    lines = Lines()
    difference = export.run(runs / model_of(wanted), path, wanted, num_images=3, log=lines)
    assert difference < 1e-5
    assert lines[0] == f"largest difference from Keras on 3 images of two photographs: {difference:.2g}"
    return wanted, path


def expected(path, images, outputs):
    """What the saved model makes of pixels, with NumPy before and behind it."""
    model = keras.saving.load_model(path)
    values = np.asarray(model((images / 255.0 - np.array(MEAN)) / np.array(STD)), np.float64)
    if outputs == "features":
        return values.mean(axis=(1, 2))
    return softmax(values, axis=-1) if outputs == "probabilities" else values


def runtime(wanted, path):
    """The function of images that a user of the format would write."""
    output = wanted.outputs or "logits"
    if wanted.format == "saved_model":
        loaded = tf.saved_model.load(path)
        return lambda images: loaded.signatures["serving_default"](images=tf.constant(images))[output].numpy()
    if wanted.format == "onnx":
        session = onnxruntime.InferenceSession(path)
        return lambda images: session.run([output], {"images": images})[0]
    interpreter = tf.lite.Interpreter(str(path))
    place = interpreter.get_input_details()[0]["index"]

    def run(images):
        interpreter.resize_tensor_input(place, images.shape)
        return interpreter.get_signature_runner()(images=images)[output]

    return run


@pytest.mark.filterwarnings("ignore::UserWarning")  # TFLite's interpreter has moved to a package of its own
def test_the_exported_model_computes_what_the_saved_one_does(runs, exported):
    wanted, path = exported
    run, name = runtime(wanted, path), model_of(wanted)
    for size in SIZES[wanted.input_size]:
        pixels = sample_photographs(5, size, 3)
        if wanted.preprocessing == "inside":
            given = pixels.astype(wanted.input_dtype)
        else:
            given = ((pixels / 255.0 - np.array(MEAN)) / np.array(STD)).astype("float32")
        target = expected(runs / name / f"{name}.keras", pixels, wanted.outputs)
        assert np.ptp(target, axis=0).max() > 0.01  # the images differ
        for count in (1, 5):
            np.testing.assert_allclose(run(given[:count]), target[:count], atol=2e-5, rtol=0)


def test_what_is_needed_to_use_it_stands_beside_it(exported):
    wanted, path = exported
    facts = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
    assert facts["format"] == wanted.format and facts["comparison"]["largest_difference"] < 1e-5
    sides = [32, 32] if wanted.input_size == "fixed" else ["height", "width"]
    assert facts["input"]["shape"] == ["batch", *sides, 3] and facts["input"]["smallest_side"] == 8
    inside = wanted.preprocessing == "inside"
    assert facts["input"]["dtype"] == (wanted.input_dtype if inside else "float32")
    assert facts["preprocessing"]["normalization"] == wanted.preprocessing
    assert (facts["preprocessing"]["mean"], facts["preprocessing"]["std"]) == (list(MEAN), list(STD))
    assert facts.get("classes") == (None if wanted.outputs == "features" else CLASSES)
    assert facts["output"]["shape"] == ["batch", 8 if wanted.outputs == "features" else 3]
    if wanted.format == "onnx":
        model = onnx.load(path)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        assert {name: json.loads(metadata[name]) for name in ("input", "output", "preprocessing")} == {
            name: facts[name] for name in ("input", "output", "preprocessing")
        }
        assert json.loads(metadata.get("classes", "null")) == facts.get("classes")
        (entry,) = model.graph.input
        shape = [side.dim_param or side.dim_value for side in entry.type.tensor_type.shape.dim]
        assert shape == facts["input"]["shape"]


def test_nothing_but_the_model_and_its_description_is_left(exported):
    wanted, path = exported
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.json"]


def test_the_graph_is_the_same_on_every_device(runs):
    """On a CPU a fixed size would bring in matrix products for convolutions, and gradients of our own."""
    model = keras.saving.load_model(runs / "classifier" / "classifier.keras")
    graph = Serving(model, "logits", (32, 32)).function.get_concrete_function().graph.as_graph_def()
    operations = [node.op for node in graph.node]
    operations += [node.op for function in graph.library.function for node in function.node_def]
    assert operations.count("Conv2D") == operations.count("DepthwiseConv2dNative") == 2  # stem and downsampling; blocks
    assert not {"IdentityN", "PartitionedCall", "StatefulPartitionedCall"} & set(operations)
    assert not any("_XlaMustCompile" in function.attr for function in graph.library.function)


def test_a_model_that_differs_is_not_handed_out(runs, tmp_path, monkeypatch):
    wrong = dataclasses.replace(
        formats.FORMATS["saved_model"], load=lambda path: lambda images: np.full((len(images), 3), np.nan, "float32")
    )
    monkeypatch.setitem(formats.FORMATS, "saved_model", wrong)
    with pytest.raises(RunError, match="saved_model differs from Keras by nan, more than --tolerance=0.0001: nothing"):
        export.run(runs / "classifier", tmp_path / "model", Request("saved_model"), num_images=1, log=Lines())
    assert list(tmp_path.iterdir()) == []


def test_the_suffix_of_another_format_is_refused(runs, tmp_path):
    message = "encoder.onnx has the suffix of onnx, but --format is saved_model: change one.$"
    with pytest.raises(UserError, match=message):
        export.run(runs / "encoder", tmp_path / "encoder.onnx", Request("saved_model"), num_images=1, log=Lines())
    assert list(tmp_path.iterdir()) == []


def test_images_to_compare_on_can_be_named(runs, tmp_path):
    lines = Lines()
    wanted = Request("saved_model", "features")
    export.run(runs / "encoder", tmp_path / "model", wanted, data="digits", num_images=40, log=lines)
    assert lines[0].startswith("largest difference from Keras on 40 images of digits: ")


def test_a_size_can_be_a_height_and_a_width(runs, tmp_path):
    wanted = Request("saved_model", input_size="24,40")
    export.run(runs / "encoder", tmp_path / "model", wanted, num_images=2, log=Lines())
    facts = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert facts["input"]["shape"] == ["batch", 24, 40, 3]


def test_weights_without_a_run_can_be_exported_with_preprocessing_outside(runs, tmp_path):
    model = keras.saving.load_model(runs / "encoder" / "encoder.keras")
    model.save(tmp_path / "weights.keras")
    wanted = Request("saved_model", input_size="48")
    export.run(tmp_path / "weights.keras", tmp_path / "model", wanted, num_images=1, log=Lines())
    with pytest.raises(
        UserError,
        match="has no config.json with mean and std beside it: use --preprocessing=outside, or give --image_preset",
    ):
        export.run(tmp_path / "weights.keras", tmp_path / "x", dataclasses.replace(wanted, preprocessing="inside"))
    with pytest.raises(
        UserError, match="has no config.json with the size beside it: use --input_size=free or a number"
    ):
        export.run(tmp_path / "weights.keras", tmp_path / "x", dataclasses.replace(wanted, input_size="fixed"))


@pytest.mark.parametrize(
    ("model", "wanted", "output", "message"),
    [
        ("encoder", Request("onnx", "logits"), "x.onnx", "encoder.keras is an encoder, which has no logits: use --out"),
        ("nothing", Request("onnx"), "x.onnx", "--model=.*nothing: There is no "),
        ("encoder", Request("onnx"), "x.tflite", "--output=.*x.tflite: name a .onnx file"),
        (
            "encoder",
            Request("saved_model"),
            "encoder",
            "--output=.*encoder already exists: name another one, or",
        ),
        ("encoder", Request("saved_model"), "encoder/encoder.keras/x", "encoder.keras/x cannot be written: "),
        ("encoder", Request("saved_model", input_size="big"), "x", "--input_size=big is neither fixed, nor free, nor"),
        (
            "encoder",
            Request("saved_model", input_size="4"),
            "x",
            "--input_size=4: the smallest size of this model is",
        ),
    ],
)
def test_mistakes_are_errors_that_say_what_to_do(runs, model, wanted, output, message):
    before = sorted(runs.rglob("*"))
    with pytest.raises(UserError, match=message):
        export.run(runs / model, runs / output, wanted, log=Lines())
    assert sorted(runs.rglob("*")) == before


def test_missing_packages_are_named(runs, tmp_path, monkeypatch):
    find = formats.importlib.util.find_spec
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None if "onnx" in name else find(name))
    with pytest.raises(UserError, match="not installed: pip install onnx onnxruntime tf2onnx .*`export`"):
        export.run(runs / "encoder", tmp_path / "x.onnx", Request("onnx"))


def test_a_model_that_no_file_can_hold_is_refused(runs, monkeypatch):
    monkeypatch.setattr(formats, "LARGEST_FILE", 1000)
    with pytest.raises(UserError, match="such files are limited to 2 GiB; use --format=saved_model"):
        formats.FORMATS["tflite"].check("tflite", keras.saving.load_model(runs / "encoder" / "encoder.keras"))
