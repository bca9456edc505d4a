"""The strict loader of pretrained weights."""

import re
import shutil

import keras
import numpy as np
import pytest

from convnext import ConvNeXtV2, PretrainedError, create_convnext_v2, create_from_weights, load_pretrained
from convnext.segmentation import Segmenter
from convnext.weights.loader import named_variables
from fcmae import FCMAE
from tests.comparison import assert_close, to_numpy
from tests.small_models import parts_of, random_images, randomize, small_backbone, small_fcmae, variables_of

CLASSIFIER = {"head/kernel", "head/bias"}
HEAD = {"head_norm/gamma", "head_norm/beta"} | CLASSIFIER


def classifier(num_classes=5, **arguments):
    return small_backbone(include_top=True, num_classes=num_classes, **arguments)


def values_of(model):
    return {name: to_numpy(variable) for name, variable in variables_of(model).items()}


def assert_same_bits(actual, expected, names):
    assert names
    for name in names:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A file with random weights of a classifier, and their values."""
    model = classifier(name="source")
    values = randomize(variables_of(model))
    path = tmp_path_factory.mktemp("source") / "weights.keras"
    model.save(path)
    return path, values


def test_all_weights_of_an_equal_model_are_loaded(source):
    path, values = source
    model = classifier()
    report = load_pretrained(model, path)
    assert_same_bits(values_of(model), values, values.keys())
    assert set(report.loaded) == set(values) == set(variables_of(model))
    assert report.left_out == report.missing == ()
    assert report.source == str(path)
    assert f"{len(values)} variables loaded" in str(report)


@pytest.mark.parametrize("decoder", ["fpn", "upernet"])
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_of_a_segmentation_model_the_encoder_is_loaded(tmp_path, decoder, suffix):
    encoder = small_backbone()
    values = randomize(variables_of(encoder))
    segmenter = Segmenter(encoder, 3, decoder, decoder_dim=4, auxiliary=True)
    path = tmp_path / f"segmenter{suffix}"
    (segmenter.save if suffix == ".keras" else segmenter.save_weights)(path)
    model = small_backbone()
    report = load_pretrained(model, path)
    assert_same_bits(values_of(model), values, values.keys())
    assert report.missing == () and len(report.left_out) == len(segmenter.weights) - len(segmenter.backbone.weights)
    assert {"classifier/vars/0", "auxiliary_classifier/vars/1"} <= set(report.left_out)
    made = create_from_weights(path, include_top=False)
    assert_same_bits(values_of(made), values, values.keys())


def test_the_head_of_another_number_of_classes_is_left_out_and_named(source):
    path, values = source
    model = classifier(num_classes=7)
    before = values_of(model)
    report = load_pretrained(model, path)
    after = values_of(model)
    assert_same_bits(after, values, values.keys() - CLASSIFIER)
    assert_same_bits(after, before, CLASSIFIER)
    assert set(report.loaded) == values.keys() - CLASSIFIER
    assert set(report.left_out) == set(report.missing) == CLASSIFIER
    left_out, newly = str(report).split("left out on purpose: ")[1].split("newly initialised: ")
    for name in CLASSIFIER:
        assert name in left_out and name in newly


def test_a_model_without_head_leaves_the_head_of_the_file_out(source):
    path, values = source
    model = small_backbone()
    report = load_pretrained(model, path)
    assert_same_bits(values_of(model), values, values.keys() - HEAD)
    assert set(report.left_out) == HEAD
    assert report.missing == ()


def test_a_file_without_head_leaves_the_head_of_the_model_as_it_is(tmp_path):
    encoder = small_backbone()
    values = randomize(variables_of(encoder))
    encoder.save(tmp_path / "encoder.keras")
    model = classifier()
    before = values_of(model)
    report = load_pretrained(model, tmp_path / "encoder.keras")
    assert_same_bits(values_of(model), values, values.keys())
    assert_same_bits(values_of(model), before, HEAD)
    assert set(report.missing) == HEAD
    assert report.left_out == ()


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_weights_are_loaded_unrounded_under_half_precision(source, precision):
    path, values = source
    model = classifier(dtype=precision)
    load_pretrained(model, path)
    assert_same_bits(values_of(model), values, values.keys())


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"dims": (4, 6, 10)}, ["stage_2/downsampling/conv/kernel", "(2, 2, 6, 10)", "(2, 2, 6, 8)"]),
        ({"depths": (1, 3, 1)}, ["stage_1/block_2/depthwise_conv/kernel", "(7, 7, 6, 1)", "no such variable"]),
        ({"depths": (1, 1, 1)}, ["stage_1/block_1/depthwise_conv/kernel", "no such variable", "(7, 7, 6, 1)"]),
        ({"kernel_size": 5}, ["stage_0/block_0/depthwise_conv/kernel", "(5, 5, 4, 1)", "(7, 7, 4, 1)"]),
        ({"stem_stride": 4}, ["stem/conv/kernel", "(4, 4, 3, 4)", "(2, 2, 3, 4)"]),
        ({"input_shape": (32, 48, 1)}, ["stem/conv/kernel", "(2, 2, 1, 4)", "(2, 2, 3, 4)"]),
    ],
)
def test_weights_that_do_not_fit_raise_show_both_sides_and_change_nothing(source, arguments, shown):
    path, _ = source
    model = classifier(**arguments)
    before = values_of(model)
    name, model_has, file_has = (re.escape(part) for part in shown)
    with pytest.raises(PretrainedError, match=f"{name}: the model has {model_has}, the file has {file_has}"):
        load_pretrained(model, path)
    assert_same_bits(values_of(model), before, before.keys())


def test_create_loads_pretrained_weights(tmp_path):
    size = {"depths": (1, 1), "dims": (4, 8), "include_top": False, "input_shape": (16, 16, 3)}
    encoder = ConvNeXtV2(**size)
    values = randomize(variables_of(encoder))
    encoder.save(tmp_path / "encoder.keras")
    model = create_convnext_v2("atto", **size, pretrained=tmp_path)
    assert_same_bits(values_of(model), values, values.keys())


@pytest.mark.parametrize(
    ("present", "chosen"),
    [(["encoder"], "encoder"), (["classifier"], "classifier"), (["encoder", "classifier"], "classifier")],
)
def test_a_workdir_gives_its_classifier_or_its_encoder(tmp_path, source, present, chosen):
    for name in present:
        shutil.copy(source[0], tmp_path / f"{name}.keras")
    report = load_pretrained(classifier(), str(tmp_path))
    assert report.source == str(tmp_path / f"{chosen}.keras")


def test_the_backbone_of_an_autoencoder_is_loaded_and_the_decoder_named_as_left_out(tmp_path):
    autoencoder = small_fcmae()
    randomize(parts_of(autoencoder))
    autoencoder.save(tmp_path / "fcmae.keras")
    model = small_backbone()
    report = load_pretrained(model, tmp_path / "fcmae.keras")
    expected = values_of(autoencoder.backbone)
    assert_same_bits(values_of(model), expected, expected.keys())
    assert set(report.loaded) == set(expected)
    assert set(report.left_out) == {name for name in parts_of(autoencoder) if name.startswith("decoder/")}


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(PretrainedError, match=re.escape(str(tmp_path / "nowhere.keras"))):
        load_pretrained(small_backbone(), tmp_path / "nowhere.keras")


def test_a_directory_without_weights_is_named(tmp_path):
    with pytest.raises(PretrainedError, match=f"{re.escape(str(tmp_path))} has no encoder.keras"):
        load_pretrained(small_backbone(), tmp_path)


# Another number of input channels, only where asked for.


def test_another_number_of_channels_is_refused_with_the_way_out(source):
    path, _ = source
    with pytest.raises(PretrainedError, match="ask for pretrained_stem=average or pretrained_stem=leave_out"):
        load_pretrained(small_backbone((32, 48, 1)), path)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_an_averaged_stem_keeps_the_features_of_grey_images(source, channels):
    path, values = source
    model, original = small_backbone((32, 48, channels)), small_backbone()
    load_pretrained(original, path)
    report = load_pretrained(model, path, pretrained_stem="average")
    kernel = to_numpy(variables_of(model)["stem/conv/kernel"])
    expected = values["stem/conv/kernel"].sum(axis=2, keepdims=True) / channels
    np.testing.assert_allclose(kernel, np.broadcast_to(expected, kernel.shape), rtol=1e-5, atol=1e-7)
    grey = random_images(2, 32, 48, 1)
    features = [to_numpy(each(np.repeat(grey, n, axis=-1))) for each, n in ((model, channels), (original, 3))]
    assert_close(features[0], features[1], 1e-4)
    assert report.averaged == ("stem/conv/kernel",) and "stem/conv/kernel" in report.loaded
    assert "averaged over the input channels: stem/conv/kernel" in str(report)


def test_a_stem_that_is_left_out_is_named_and_stays(source):
    path, values = source
    model = small_backbone((32, 48, 2))
    before = values_of(model)
    report = load_pretrained(model, path, pretrained_stem="leave_out")
    assert_same_bits(values_of(model), before, {"stem/conv/kernel"})
    assert_same_bits(values_of(model), values, values.keys() - HEAD - {"stem/conv/kernel"})
    assert report.missing == ("stem/conv/kernel",) and "stem/conv/kernel" in report.left_out
    assert report.averaged == ()


def test_an_unknown_way_with_the_stem_is_an_error(source):
    with pytest.raises(ValueError, match="pretrained_stem='sum' is not one of load, average, leave_out"):
        load_pretrained(small_backbone(), source[0], pretrained_stem="sum")


def test_create_passes_the_way_with_the_stem_on(tmp_path):
    size = {"depths": (1, 1), "dims": (4, 8), "include_top": False}
    encoder = ConvNeXtV2(**size)
    encoder.save(tmp_path / "encoder.keras")
    model = create_convnext_v2("atto", **size, input_shape=(16, 16, 1), pretrained=tmp_path, pretrained_stem="average")
    kernel = to_numpy(variables_of(encoder)["stem/conv/kernel"]).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(to_numpy(variables_of(model)["stem/conv/kernel"]), kernel, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("way", ["average", "leave_out"])
def test_a_stem_that_fits_is_loaded_whatever_was_asked_for(source, way):
    path, values = source
    model = small_backbone()
    report = load_pretrained(model, path, pretrained_stem=way)
    assert_same_bits(values_of(model), values, values.keys() - HEAD)
    assert report.averaged == report.missing == ()


def test_a_created_model_says_what_is_new_in_it(source, caplog):
    size = {"depths": (1, 2, 1), "dims": (4, 6, 8), "stem_stride": 2, "input_shape": (32, 48, 3)}
    create_convnext_v2("atto", num_classes=7, **size, pretrained=source[0])
    (record,) = [record for record in caplog.records if record.name == "convnext"]
    assert record.levelname == "WARNING" and "newly initialised: head/kernel, head/bias" in record.getMessage()


def test_an_encoder_gets_a_head_where_classes_are_asked_for(tmp_path):
    small_backbone().save(tmp_path / "encoder.keras")
    assert create_from_weights(tmp_path / "encoder.keras", num_classes=7)(random_images(2, 32, 48, 3)).shape == (2, 7)


def test_names_do_not_depend_on_where_a_model_was_made(source):
    path, values = source

    class Detector(keras.Model):
        def build(self, input_shape):
            self.backbone_model = classifier(name="decoder")

        def call(self, images):
            return self.backbone_model(images)

    detector = Detector()
    detector(random_images(1, 32, 48, 3))
    load_pretrained(detector.backbone_model, path)
    loaded = named_variables(detector.backbone_model)
    for name, value in values.items():
        np.testing.assert_array_equal(to_numpy(loaded[name]), value, err_msg=name)


def test_a_backbone_may_be_called_decoder(tmp_path):
    model = FCMAE(small_backbone(name="decoder"), decoder_dim=8)
    randomize({variable.path + str(i): variable for i, variable in enumerate(model.trainable_variables)})
    model.save(tmp_path / "fcmae.keras")
    report = load_pretrained(FCMAE(small_backbone(), decoder_dim=8), tmp_path / "fcmae.keras")
    assert len(report.loaded) == len(model.trainable_variables) and report.missing == report.left_out == ()


# Autoencoders.


def test_an_autoencoder_takes_encoder_and_decoder(tmp_path):
    autoencoder = small_fcmae()
    values = randomize(parts_of(autoencoder))
    autoencoder.save(tmp_path / "fcmae.keras")
    model = small_fcmae()
    report = load_pretrained(model, tmp_path / "fcmae.keras")
    after = {name: to_numpy(variable) for name, variable in parts_of(model).items()}
    assert_same_bits(after, values, values.keys())
    assert set(report.loaded) == values.keys() and report.left_out == report.missing == ()


def test_an_autoencoder_takes_an_encoder_and_keeps_its_own_decoder(source):
    path, values = source
    model = small_fcmae()
    before = {name: to_numpy(variable) for name, variable in parts_of(model).items()}
    report = load_pretrained(model, path)
    after = {name: to_numpy(variable) for name, variable in parts_of(model).items()}
    decoder = {name for name in after if name.startswith("decoder/")}
    assert_same_bits(after, before, decoder)
    assert_same_bits(after, values, values.keys() - HEAD)
    assert set(report.missing) == decoder and set(report.left_out) == HEAD


def test_a_decoder_of_another_size_is_refused(tmp_path):
    small_fcmae().save(tmp_path / "fcmae.keras")
    with pytest.raises(PretrainedError, match=r"decoder/mask_token: the model has \(6,\), the file has \(8,\)"):
        load_pretrained(small_fcmae(decoder_dim=6), tmp_path / "fcmae.keras")
