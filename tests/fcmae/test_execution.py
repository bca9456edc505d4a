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


def make_step(policy, execution="sparse"):
    """Returns a function of images and mask to the loss and the gradients of one and the same model."""
    backbone = small_backbone(drop_path_rate=0.0, dtype=policy)
    model = FCMAE(backbone, decoder_dim=8, dtype=policy, execution=execution)
    randomize(parts_of(model), scale=0.2)
    variables = [variable.value for variable in parts_of(model).values()]

    def step(images, visible):
        with tf.GradientTape() as tape:
            loss = ops.mean(model.image_losses(images, visible, training=True))
        return loss, *tape.gradient(loss, variables)

    return step


@pytest.fixture
def compile_small_chains(monkeypatch):
    """In a graph even short chains of element-wise operations are compiled, with gradients of their own."""
    monkeypatch.setattr(fusion, "LEAST_VALUES", 1)


def test_a_compiled_step_has_the_gradients_of_the_plain_one(compile_small_chains):
    images, visible = random_images(3, 32, 48, 3), random_visible(3, 24, 9)
    loss, *actual = tf.function(make_step("float32"))(images, visible)
    expected_loss, *expected = make_step("float32", "dense")(images, visible)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-6)
    for value, reference in zip(actual, expected):
        assert_close(value, to_numpy(reference), 1e-4)


def test_a_compiled_step_is_as_exact_as_the_plain_one_in_bfloat16(compile_small_chains):
    """Fused operations round at other places, but as often: against float32 both err by a like amount.

    A gradient sums hundreds of rounded terms, so how far the errors of one batch cancel is chance: over 8 batches
    their root mean square varies by a factor of 2 for the smallest variables, which have 4 values.
    """
    batches = [(random_images(3, 32, 48, 3, seed=i), random_visible(3, 24, 9, seed=i)) for i in range(8)]
    exact, plain, compiled = (
        [[to_numpy(value) for value in step(*map(tf.constant, batch))] for batch in batches]
        for step in (make_step("float32"), make_step("mixed_bfloat16"), tf.function(make_step("mixed_bfloat16")))
    )

    def error(found):
        """Root mean square over the batches, one a variable, the loss first."""
        squares = [[np.sum((a - b) ** 2) for a, b in zip(*batch)] for batch in zip(found, exact)]
        return np.sqrt(np.mean(squares, axis=0))

    assert (error(compiled) <= 3 * error(plain)).all(), error(compiled) / error(plain)


@pytest.mark.parametrize("dtype", ["bool", "int32"])
@pytest.mark.parametrize("execution", ["sparse", "dense"])
def test_a_mask_may_be_of_any_type(execution, dtype):
    model = small_fcmae(execution=execution)
    images, visible = random_images(2, 32, 48, 3), random_visible(2, 24, 9)
    expected = to_numpy(model.image_losses(images, visible))
    np.testing.assert_array_equal(to_numpy(model.image_losses(images, visible.astype(dtype))), expected)
