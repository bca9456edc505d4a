"""The soak test on a real run: killed, damaged, started again. With LONG_TESTS=1 in the environment."""

import json
import os

import pytest

from tests.launch.commands import PRESET, run


@pytest.mark.skipif(os.environ.get("LONG_TESTS") != "1", reason="it takes half a minute: set LONG_TESTS=1")
def test_a_run_that_is_killed_comes_to_the_same(tmp_path):
    (tmp_path / "tiny.py").write_text(PRESET.replace('"steps": 4', '"steps": 12').replace("log_every=2", "log_every=1"))
    kills = ["--kills=1", "--kills_while_saving=0", "--damages=1", "--forks"]
    quick = ["--config.checkpoint_every=3", "--config.pretrain.pictures=0", "--config.data.validation_share=0"]
    files = [f"--config={tmp_path / 'tiny.py'}", f"--workdir={tmp_path / 'soak'}", f"--json={tmp_path / 'soak.json'}"]
    outcome = run("soak", *files, *quick, *kills)
    assert outcome.code == 0, outcome.output + outcome.errors
    results = json.loads((tmp_path / "soak.json").read_text())
    assert results["findings"] == [] and results["steps"] == 12
    assert results["compared"]["lines of metrics"] == 12
    assert results["compared"]["weights of saved models"] > 20
    assert "The run that was killed came to the same as the undisturbed one, bit for bit." in outcome.lines
    (kill,) = results["kills"]
    assert kill["step"] == 12 and kill["damage"].startswith(("ckpt-9.", "ckpt-12."))
    log = (tmp_path / "soak" / "killed_001.log").read_text()
    assert "is damaged" in log or "is unfinished" in log
    assert "  starts from   its own checkpoint of step " in log
