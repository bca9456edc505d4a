"""The notebook in docs/notebooks runs from its first cell to its last, with little to do."""

import dataclasses
import json
import sys

import pytest

from tests.documentation import ROOT

NOTEBOOK = ROOT / "docs" / "notebooks" / "own_images.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def shortened(config):
    """The configuration with a tiny model and two steps a run."""
    short = {"steps": 2, "batch_size": 16, "warmup_epochs": 0, "evaluations": 1}
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, depths=(1,), dims=(4,), stem_stride=8, decoder_dim=8),
        pretrain=dataclasses.replace(config.pretrain, **short, pictures=1, probe_every=0),
        finetune=dataclasses.replace(config.finetune, **short),
    )


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The names that the notebook defines, and the folder in which it ran."""
    folder, names = tmp_path_factory.mktemp("notebook"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["ipykernel_launcher.py"])
        for cell in CELLS:
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}: {cell['id']}", "exec"), names)
            if "config" in cell["metadata"].get("tags", ()):
                names["config"] = shortened(names["config"])
    return names, folder


def test_the_images_are_reconstructed_found_and_classified(executed):
    names, folder = executed
    assert names["config"].data.source == "folder:images" and names["summary"]["images"] == 1437
    assert names["table"].features.shape == (1797, 4) and len(set(names["table"].labels)) == 10
    assert {path.name for path in (folder / "runs" / "notebook").iterdir()} == {
        *("pretrained", "features.npz", "search.png", "finetuned"),
    }
    assert len(names["queries"]) == len(set(names["queries"])) == 3
    assert names["result"]["images"] == 100 and names["result"]["pretrained"] == "runs/notebook/pretrained"


def test_the_outputs_that_are_kept_are_small_and_have_no_errors():
    outputs = [output for cell in CELLS for output in cell.get("outputs", ())]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert NOTEBOOK.stat().st_size < 300_000
