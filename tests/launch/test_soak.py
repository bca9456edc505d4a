"""The soak test on a real run: killed, damaged, started again."""

import json

from tests.launch.commands import PRESET, run


def test_a_run_that_is_killed_comes_to_the_same(tmp_path):
    (tmp_path / "tiny.py").write_text(PRESET.replace('"steps": 4', '"steps": 12').replace("log_every=2", "log_every=1"))
    kills = ["--kills=2", "--kills_while_saving=1", "--damages=1", "--forks"]
    quick = ["--config.checkpoint_every=3", "--config.pretrain.pictures=0", "--config.data.validation_share=0"]
    files = [f"--config={tmp_path / 'tiny.py'}", f"--workdir={tmp_path / 'soak'}", f"--json={tmp_path / 'soak.json'}"]
    outcome = run("soak", *files, *quick, *kills)
    assert outcome.code == 0, outcome.output + outcome.errors
    results = json.loads((tmp_path / "soak.json").read_text())
    assert results["findings"] == [] and results["steps"] == 12 and len(results["kills"]) == 2
    assert results["compared"]["lines of metrics"] == 12
    assert results["compared"]["weights of saved models"] > 20
    assert "The run that was killed came to the same as the undisturbed one, bit for bit." in outcome.lines
    (saving,) = [record for record in results["kills"] if record["moment"] in ("saving", "stopping")]
    assert "ckpt-" in saving["under_way"]
    assert sum(record["damage"] is not None for record in results["kills"]) == 1
    logs = [path.read_text() for path in sorted((tmp_path / "soak").glob("killed_*.log"))]
    assert any("is damaged" in log or "is unfinished" in log for log in logs)
