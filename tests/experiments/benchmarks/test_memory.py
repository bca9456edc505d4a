"""The search for the largest batch that fits."""

import pytest

from experiments.benchmarks import memory
from experiments.benchmarks.step import StepSettings
from experiments.config import Config, DataConfig, ModelConfig, PretrainConfig
from experiments.errors import UserError
from tests.experiments.tiny import Lines

TINY = Config(
    model=ModelConfig(depths=(1,), dims=(4,)), data=DataConfig(image_size=8), pretrain=PretrainConfig(batch_size=2)
)


@pytest.mark.parametrize("first", [1, 8, 300])
@pytest.mark.parametrize("most", [0, 1, 2, 7, 100, 1000])
def test_the_largest_is_found_to_an_eighth(first, most):
    tried = []
    found = memory.largest(lambda batch: tried.append(batch) or batch <= most, first)
    assert found <= most and most - found <= max(0, most // 8)
    assert len(tried) < 25


def test_a_batch_is_tried_in_a_process_of_its_own(monkeypatch):
    settings, lines = StepSettings(TINY, candidates=("sparse",)), Lines()
    peak, device = memory._peak(settings, 2)
    assert device == "CPU" and 2**26 < peak < 2**33
    peaks = {2: peak, 4: peak + 1, 3: None}
    monkeypatch.setattr(memory, "_peak", lambda settings, batch: (peaks[batch], "CPU"))
    results = memory.run(settings, limit=peak, log=lines)
    assert results["largest_batch"] == 2 and results["tried"] == {2: peak, 4: None, 3: None}
    assert "batch      3  out of memory" in lines.text and "largest batch that fits: 2" in lines.text


def test_a_model_of_which_not_one_image_fits_is_told(monkeypatch):
    monkeypatch.setattr(memory, "_peak", lambda settings, batch: (None, "CPU"))
    with pytest.raises(UserError, match="Not even a batch of one image fits"):
        memory.run(StepSettings(TINY, candidates=("sparse",)), log=Lines())
