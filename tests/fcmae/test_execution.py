"""Sparse and dense execution are the same function: losses, features and every gradient."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from convnext import ConvNeXtV1
from convnext.tf_cpu import fusion
from fcmae import FCMAE
from tests.comparison import assert_close, gradients, to_numpy
from tests.small_models import parts_of, random_images, random_visible, randomize, small_backbone, small_fcmae

CASES = {
    "several stages": ((32, 48, 3), {}, 0.6),
    "one visible patch": ((24, 32, 1), {"depths": (1, 2), "dims": (4, 6)}, 0.97),
    "one hidden patch": ((32, 32, 3), {"depths": (2, 1), "dims": (4, 4), "stem_stride": 4}, 0.05),
    "the first version": ((32, 48, 3), {"model": ConvNeXtV1}, 0.6),
    "one stage, odd sizes": ((9, 15, 2), {"depths": (2,), "dims": (5,), "stem_stride": 3}, 0.5),
}


def loss_and_gradients(model, images, visible):
    def loss():
        return ops.mean(model.image_losses(images, visible, training=True))

    return loss(), gradients(loss, list(parts_of(model).values()))


@pytest.mark.parametrize(("size", "arguments", "mask_ratio"), CASES.values(), ids=CASES)
def test_executions_agree(size, arguments, mask_ratio):
    model = FCMAE(small_backbone(size, **arguments), mask_ratio=mask_ratio, decoder_dim=8, execution="sparse")
    dense = FCMAE(model.backbone, mask_ratio=mask_ratio, decoder_dim=8, execution="dense")
    randomize(parts_of(model))
    dense.decoder.set_weights(model.decoder.get_weights())
    images = random_images(3, *size)
    visible = random_visible(3, model.num_patches, model.num_visible)
    assert_close(model.encode(images, visible), np.asarray(dense.encode(images, visible)), 1e-5)
    (loss, actual), (expected_loss, expected) = (loss_and_gradients(each, images, visible) for each in (model, dense))
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-6)
    for value, reference in zip(actual, expected):
        assert_close(value, np.asarray(reference), 1e-4)


def test_an_unknown_execution_is_an_error():
    with pytest.raises(ValueError, match="execution='fast' is not one of sparse, dense"):
        FCMAE(small_backbone(), execution="fast")


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_compiled_step_has_the_gradients_of_the_plain_one(policy, monkeypatch):
    """In a graph long chains of element-wise operations are compiled, with gradients of their own.

    In float32 the reference is the dense execution, which is not compiled.
    """
    monkeypatch.setattr(fusion, "LEAST_VALUES", 1)
    model = FCMAE(small_backbone(drop_path_rate=0.0, dtype=policy), decoder_dim=8, dtype=policy)
    randomize(parts_of(model), scale=0.2)
    images, visible = random_images(3, 32, 48, 3), random_visible(3, 24, 9)
    variables = [variable.value for variable in parts_of(model).values()]

    def step():
        with tf.GradientTape() as tape:
            loss = ops.mean(model.image_losses(images, visible, training=True))
        return loss, *tape.gradient(loss, variables)

    loss, *actual = tf.function(step)()
    if policy == "float32":
        model.execution = "dense"
    expected_loss, *expected = step()
    # Rounding to bfloat16 falls elsewhere where operations are fused.
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-6 if policy == "float32" else 1e-2)
    for value, reference in zip(actual, expected):
        assert_close(value, to_numpy(reference), 1e-4 if policy == "float32" else 0.2)


@pytest.mark.parametrize("dtype", ["bool", "int32"])
@pytest.mark.parametrize("execution", ["sparse", "dense"])
def test_a_mask_may_be_of_any_type(execution, dtype):
    model = small_fcmae(execution=execution)
    images, visible = random_images(2, 32, 48, 3), random_visible(2, 24, 9)
    expected = to_numpy(model.image_losses(images, visible))
    np.testing.assert_array_equal(to_numpy(model.image_losses(images, visible.astype(dtype))), expected)
