"""What holds for every size, mask and width: the executions agree, hidden pixels do not exist, images are alone."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from keras import ops

from convnext import ConvNeXtV1, ConvNeXtV2
from fcmae import FCMAE
from fcmae.encoder import EXECUTIONS
from fcmae.masking import num_visible
from tests.comparison import assert_close, gradients, to_numpy
from tests.small_models import parts_of, random_images, random_visible, randomize


@st.composite
def cases(draw):
    """An encoder's and a mask's sizes: anything from one visible patch to one hidden patch."""
    stages = draw(st.integers(1, 3))
    grid = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)).filter(lambda grid: grid[0] * grid[1] > 1))
    patches = grid[0] * grid[1]
    return {
        "model": draw(st.sampled_from([ConvNeXtV1, ConvNeXtV2])),
        "depths": tuple(draw(st.lists(st.integers(1, 2), min_size=stages, max_size=stages))),
        # Over one or two channels LayerNorm is a step, whose gradient is rounding alone.
        "dims": tuple(draw(st.lists(st.integers(4, 9), min_size=stages, max_size=stages))),
        "stem_stride": draw(st.integers(1, 4)),
        "kernel_size": draw(st.sampled_from([3, 4, 7])),
        "channels": draw(st.integers(1, 4)),
        "grid": grid,
        "visible": draw(st.one_of(st.just(1), st.just(patches - 1), st.integers(1, patches - 1))),
        "batch": draw(st.integers(1, 3)),
        "seed": draw(st.integers(0, 999)),
    }


def make(case, execution="sparse", dtype=None):
    """An `FCMAE` of a case with random weights, and a batch of images and masks for it."""
    stride = case["stem_stride"] * 2 ** (len(case["depths"]) - 1)
    shape = (case["grid"][0] * stride, case["grid"][1] * stride, case["channels"])
    names = ("depths", "dims", "stem_stride", "kernel_size")
    backbone = case["model"](**{name: case[name] for name in names}, input_shape=shape, include_top=False, dtype=dtype)
    patches = case["grid"][0] * case["grid"][1]
    ratio = 1.0 - case["visible"] / patches
    assert num_visible(patches, ratio) == case["visible"]
    # A patch of one value has no variance to normalize by.
    normalize = stride**2 * case["channels"] > 1
    model = FCMAE(backbone, ratio, decoder_dim=5, normalize_targets=normalize, execution=execution, dtype=dtype)
    randomize(parts_of(model), case["seed"])
    images = random_images(case["batch"], *shape, seed=case["seed"])
    return model, images, random_visible(case["batch"], patches, case["visible"], case["seed"])


def mean_loss(execution, model, images, visible, **arguments):
    """Of a model that was made once for both: Keras takes longer to make one than to call it."""
    model.execution = execution
    return ops.mean(model.image_losses(images, visible, **arguments))


def loss_and_gradients(execution, model, *inputs):
    losses = []

    def loss():
        losses.append(mean_loss(execution, model, *inputs, training=True))
        return losses[0]

    found = gradients(loss, list(parts_of(model).values()))
    return float(losses[0]), found


# Without shrinking: it takes minutes, and a case is small as it is.
few = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


@few
@given(cases())
def test_sparse_equals_dense_in_loss_and_every_gradient(case):
    made = make(case)
    (loss, actual), (expected_loss, expected) = (loss_and_gradients(each, *made) for each in EXECUTIONS)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    scale = max(np.abs(reference).max() for reference in expected)
    for value, reference in zip(actual, expected):
        # Gradients that are zero by symmetry are rounding in both, so nothing is compared below the scale of all.
        if np.abs(reference).max() > 1e-4 * scale:
            assert_close(value, reference, 1e-4)
        else:
            assert np.abs(value - reference).max() <= 1e-6 * scale


@few
@given(cases(), st.sampled_from(EXECUTIONS))
def test_hidden_pixels_change_no_bit_of_the_latent(case, execution):
    model, images, visible = make(case, execution)
    side = model.patch_size
    hidden = np.kron(visible.reshape(-1, *model.grid), np.ones((1, side, side)))[..., None] == 0
    before = to_numpy(model.encode(images, visible))
    for other in (np.nan, np.inf, 1e30, 0.0):
        np.testing.assert_array_equal(
            to_numpy(model.encode(np.where(hidden, np.float32(other), images), visible)), before
        )


@few
@given(cases().filter(lambda case: case["batch"] > 1), st.sampled_from(EXECUTIONS))
def test_what_is_visible_in_one_image_changes_no_other(case, execution):
    model, images, visible = make(case, execution)
    before = to_numpy(model.encode(images, visible))
    images, visible = images.copy(), visible.copy()
    images[0] = images[0, ::-1] + 1.0
    visible[0] = visible[0, ::-1]
    after = to_numpy(model.encode(images, visible))
    np.testing.assert_array_equal(after[1:], before[1:])


@few
@given(cases())
def test_bfloat16_is_as_near_to_float32_sparse_as_dense(case):
    # Eight bits of mantissa, and errors that add up over a few layers.
    expected = pytest.approx(float(mean_loss("sparse", *make(case))), rel=0.05, abs=0.02)
    made = make(case, dtype="mixed_bfloat16")
    for execution in EXECUTIONS:
        assert float(mean_loss(execution, *made)) == expected
