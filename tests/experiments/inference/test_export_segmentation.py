"""Exported segmentation models, run by their own runtimes at two sizes, against the Keras model."""

import json

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from experiments.errors import UserError
from experiments.finished_run import read_segmenter
from experiments.inference import export
from experiments.inference.export import Request
from experiments.models import make_segmenter
from experiments.training.workdir import record_config, write_json
from tests.experiments.tiny import TWO_STAGES, Lines, change, tiny_config
from tests.small_models import randomize

SUFFIX = {"onnx": ".onnx", "saved_model": "", "tflite": ".tflite"}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Of a run with UPerNet, which has every operation that a decoder has."""
    config = tiny_config(model=TWO_STAGES, data={"channels": 3, "mean": (0.5,) * 3, "std": (0.25,) * 3})
    config = change(change(config, "finetune", task="segmentation"), "segmentation", decoder_dim=8)
    folder = tmp_path_factory.mktemp("runs") / "segmented"
    record_config(folder, config, "finetune")
    model = make_segmenter(config, 3)
    randomize({variable.path: variable for variable in model.weights})
    model.save(folder / "segmenter.keras")
    (folder / "classes.txt").write_text("0 ground\n7 square\n255 disc\n")
    write_json(folder / "summary.json", {"classes": ["ground", "square", "disc"]})
    return folder


def runtime(kind, path):
    if kind == "onnx":
        session = onnxruntime.InferenceSession(path)
        return lambda images: session.run(["logits"], {"images": images})[0]
    if kind == "saved_model":
        loaded = tf.saved_model.load(path)
        return lambda images: loaded.serve(images)["logits"].numpy()
    interpreter = tf.lite.Interpreter(str(path))

    def run(images):
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], images.shape)
        return interpreter.get_signature_runner()(images=images)["logits"]

    return run


@pytest.mark.filterwarnings("ignore::UserWarning")  # TFLite's interpreter has moved to a package of its own
@pytest.mark.parametrize("kind", SUFFIX)
def test_every_format_computes_what_keras_does_at_any_size(workdir, tmp_path, kind):
    path = tmp_path / f"model{SUFFIX[kind]}"
    difference = export.run(workdir, path, Request(kind, input_size="free"), num_images=2, log=Lines())
    assert difference < 1e-4  # at 32x32 and 69x53, which the stride does not divide
    facts = json.loads((tmp_path / f"{path.name}.json").read_text())
    assert facts["output"]["shape"] == ["batch", "height", "width", 3] and facts["input"]["smallest_side"] == 1
    assert facts["classes"] == ["ground", "square", "disc"] and facts["class_numbers"] == [0, 7, 255]
    model, run = read_segmenter(workdir / "segmenter.keras")[0], runtime(kind, path)
    for size in ((17, 30), (48, 40)):
        images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
        expected = np.asarray(model(images))
        assert np.ptp(expected) > 1
        np.testing.assert_allclose(run(images), expected, atol=1e-4, rtol=0)


def test_settings_of_images_are_refused(workdir, tmp_path):
    with pytest.raises(UserError, match="whose images are prepared as the config.json beside it says: leave out"):
        export.run(workdir, tmp_path / "model.onnx", Request("onnx"), images={"mean": (0.5,) * 3}, log=Lines())


def test_features_are_those_of_the_encoder_beside_it(workdir, tmp_path):
    with pytest.raises(UserError, match=r"export encoder.keras beside it for features"):
        export.run(workdir, tmp_path / "model.onnx", Request("onnx", "features"), log=Lines())
