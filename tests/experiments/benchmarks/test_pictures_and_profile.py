"""The picture over mask ratios, and how the profile reads TensorFlow's events."""

import numpy as np
import pytest
from PIL import Image

from experiments.benchmarks import plot, profile
from experiments.benchmarks.settings import StepSettings
from experiments.benchmarks.statistics import summarize
from experiments.errors import UserError


def table(visible, milliseconds):
    seconds = summarize([0.001 * value for value in milliseconds])
    return {"num_visible": visible, "num_patches": 49, "contenders": {"sparse": {"seconds_per_step": seconds}}}


def test_a_curve_is_drawn(tmp_path):
    settings = {"depths": (), "dims": (), "variant": "atto", "batch_size": 8, "image_size": 224}
    results = {"settings": settings, "tables": [table(29, [30, 31]), table(12, [10, 11]), table(19, [20, 21])]}
    plot.draw_mask_ratios(tmp_path / "ratios.png", results)
    pixels = np.asarray(Image.open(tmp_path / "ratios.png").convert("RGB")).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0]) > 100
    # The curve rises with the share of visible patches: from below on the left to above on the right.
    columns = np.flatnonzero(blue[100:].any(axis=0))
    left, right = (np.flatnonzero(blue[100:, column]).mean() for column in columns[[2, -3]])
    assert len(columns) > 200 and left > right + 50


@pytest.mark.parametrize(
    ("event", "operation"),
    [
        ("model/stem/MatMul:_MklMatMul", "_MklMatMul"),
        ("a/GatherV2:GatherV2#id=3,step=1#", "GatherV2"),
        ("CpuExecutable::ExecuteAsyncOnStream", profile.COMPILED),
        ("ExecutorState::Process", ""),
        ("ThunkExecutor::Execute", ""),
        ("a: __inference_training_step_13", ""),
        ("BlockUntilReady", ""),
    ],
)
def test_an_event_is_an_operation_or_none(event, operation):
    assert profile._operation(event) == operation


@pytest.mark.parametrize("changes", [{"backend": "jax"}, {"execution": ("pytorch",)}, {"without": ("onednn",)}])
def test_only_tensorflow_can_be_profiled(changes):
    with pytest.raises(UserError, match="--backend=tensorflow"):
        profile.run(StepSettings(**changes))
