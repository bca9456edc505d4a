"""What is frozen stays frozen: flags of nested layers in copies, in files, and beside an optimizer."""

import keras
import numpy as np
import pytest

from convnext import ConvNeXtV1, ConvNextV2Block
from convnext.stages import Stage
from fcmae import FCMAE
from tests.comparison import to_numpy
from tests.small_models import random_images, small_backbone, small_fcmae

INPUTS = (32, 48, 3)


def frozen(layer, *paths, thawed=()):
    """The layer, after the parts at `paths`, names between dots, were frozen, and those `thawed` set free again."""
    for value, chosen in ((False, paths), (True, thawed)):
        for path in chosen:
            part = layer
            for name in path.split(".") if path else ():
                part = part[int(name)] if name.isdigit() else getattr(part, name)
            part.trainable = value
    return layer


def sequential(layer):
    return keras.Sequential([keras.Input(INPUTS), layer, keras.layers.Flatten(), keras.layers.Dense(2)])


def functional(layer):
    inputs = keras.Input(INPUTS)
    return keras.Model(inputs, keras.layers.Dense(2)(layer(inputs)))


def of_features(backbone):
    inputs = keras.Input(INPUTS)
    return keras.Model(inputs, keras.layers.Dense(2)(backbone.extract_features(inputs)[-1]))


def classifier(**arguments):
    return small_backbone(include_top=True, num_classes=5, drop_path_rate=0.2, **arguments)


# How each model is made, and how many of its variables train.
CASES = {
    "whole encoder": (lambda: sequential(frozen(small_backbone(), "")), 2),
    "constructed frozen": (lambda: sequential(small_backbone(model=ConvNeXtV1, trainable=False)), 2),
    "stage": (lambda: sequential(frozen(small_backbone(), "stages.0")), 44),
    "block of a classifier": (lambda: frozen(classifier(), "stages.1.blocks.1"), 46),
    "single layers": (lambda: frozen(classifier(), "stages.0.blocks.0.grn", "stem.norm", "head_norm"), 50),
    "all but the head": (lambda: frozen(classifier(), "stem", "stages.0", "stages.1", "stages.2", "head_norm"), 2),
    "part of a frozen whole": (
        lambda: functional(frozen(small_backbone(), "", thawed=["stages.2", "stages.0.blocks.0.norm"])),
        18,
    ),
    "stages that stand alone": (lambda: of_features(frozen(small_backbone(), "stem.conv", "stages.1.blocks.0")), 42),
    "backbone of an autoencoder": (lambda: frozen(small_fcmae(), "backbone"), 15),
    "autoencoder within": (lambda: functional(frozen(small_fcmae(), "backbone.stages.0", "decoder.blocks.0.grn")), 57),
    "decoder but its block": (lambda: frozen(small_fcmae(), "backbone", "decoder", thawed=["decoder.blocks.0"]), 10),
    "autoencoder constructed frozen": (lambda: functional(FCMAE(small_backbone(), decoder_dim=8, trainable=False)), 2),
    "each step of a film": (
        lambda: keras.Sequential([keras.layers.TimeDistributed(frozen(small_backbone(), "stages.0", "stem"))]),
        38,
    ),
}


def through_a_file(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


COPIES = {
    "configuration": lambda model, folder: type(model).from_config(model.get_config()),
    "clone": lambda model, folder: keras.models.clone_model(model),
    "file": through_a_file,
}


def flags_of(model):
    """Whether each variable trains; the model's own flag hides those of its parts where it is False."""
    return [variable.trainable for variable in model.variables]


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize(("make", "count"), CASES.values(), ids=CASES)
def test_a_copy_trains_the_same_variables(make, count, copy, tmp_path):
    model = make()
    if not model.built:
        model.build((None, 2, *INPUTS))
    again = copy(model, tmp_path)
    assert len(again.trainable_variables) == len(model.trainable_variables) == count
    assert flags_of(again) == flags_of(model)


def test_what_is_not_frozen_leaves_no_trace_in_the_configuration():
    for model in (small_backbone(), frozen(small_backbone(), ""), small_fcmae()):
        assert "trainable_parts" not in model.get_config()
    config = frozen(small_backbone(), "stages.1", thawed=["stages.1.blocks.0"]).get_config()
    assert config["trainable_parts"] == {"stages/1": False, "stages/1/blocks/0": True}


def test_a_file_of_before_says_only_whether_the_whole_is_frozen():
    model = frozen(small_backbone(), "", thawed=["stem"])
    config = model.get_config()
    del config["trainable_parts"]
    again = sequential(type(model).from_config(config))
    assert len(again.trainable_variables) == 2


def test_a_stage_that_was_put_together_by_hand_keeps_the_flags_of_its_blocks():
    blocks = [ConvNextV2Block(4, name="a"), ConvNextV2Block(4, name="b", trainable=False)]
    stage = Stage(None, blocks)
    again = Stage.from_config(stage.get_config())
    again.build((None, None, None, 4))
    assert [len(block.trainable_variables) for block in again.blocks] == [10, 0]


def test_thawing_a_copy_thaws_all_of_it(tmp_path):
    again = through_a_file(sequential(frozen(small_backbone(), "")), tmp_path)
    again.layers[0].trainable = True
    assert len(again.trainable_variables) == len(sequential(small_backbone()).trainable_variables)


PARTS = {
    "whole encoder": lambda: sequential(frozen(small_backbone(), "")),
    "parts": lambda: sequential(frozen(small_backbone(), "", thawed=["stages.0.blocks.0", "stages.2"])),
    "autoencoder": lambda: frozen(small_fcmae(), "backbone"),
}


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_the_optimizer_of_a_loaded_model_is_where_it_was(make, tmp_path):
    model = make()
    images = random_images(4, *INPUTS)
    labels = None if isinstance(model, FCMAE) else np.zeros((4, 2), "float32")
    model.compile("adam", None if labels is None else "mse", run_eagerly=True)
    model.fit(images, labels, batch_size=2, verbose=0)
    again = through_a_file(model, tmp_path)
    before, after = (each.optimizer.variables for each in (model, again))
    assert len(before) == 2 * len(model.trainable_variables) + 2
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
    frozen_before = [to_numpy(variable) for variable in again.variables if not variable.trainable]
    again.fit(images, labels, batch_size=2, verbose=0)
    frozen_after = [to_numpy(variable) for variable in again.variables if not variable.trainable]
    changed = [not np.array_equal(*pair) for pair in zip(frozen_before, frozen_after, strict=True)]
    # The state of a random generator moves.
    assert sum(changed) == sum("seed_generator" in v.path for v in again.variables)


@pytest.mark.parametrize("make", [small_fcmae, lambda: small_backbone(include_top=True, num_classes=2)])
def test_a_step_of_fit_is_traced_once(make):
    model, images, traced = make(), random_images(4, *INPUTS), []
    train_step = model.train_step
    model.train_step = lambda data: traced.append(data) or train_step(data)
    labels = None if isinstance(model, FCMAE) else np.zeros((4, 2), "float32")
    model.compile("adam", None if labels is None else "mse")
    model.fit(images, labels, batch_size=2, verbose=0)
    assert len(traced) == 1 and model.optimizer.iterations == 2
