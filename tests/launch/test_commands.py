"""Commands that do their work, as README and docs/ show them for images of one's own; and a run that is stopped.

With FCMAE_NO_SKIPS=1 in the environment, as in continuous integration, those of the recipe as well.
"""

import json
import os
import re

import pytest

from tests.documentation import commands, python_blocks
from tests.experiments.images import encode, gradient, write
from tests.experiments.scenes import scene
from tests.launch.commands import PRESET, run, run_forked, terminate_after

OWN = re.compile(r"runs/own|features\.npz")
PAGES = ["README", "export", "runs"]
if os.environ.get("FCMAE_NO_SKIPS") == "1":
    PAGES.append("recipe")  # the same commands with other flags, half a minute
OWN_IMAGES = [one for one in dict.fromkeys(sum(map(commands, PAGES), [])) if OWN.search(" ".join(one[1]))]
STUDY = ("--name=fewer_labels", "--budget=tiny", "--seeds=1", "--only=*/pretraining", "--workdir=runs/study")
SMALL = (
    "--config.data.source=digits",
    *(f"--config.model.{size}" for size in ("depths=(1,)", "dims=(4,)", "stem_stride=8")),
)
STUDY_OF_DIGITS = ("study", (*STUDY, *SMALL))
STEPS = 150
LONG = [f"--config.pretrain.steps={STEPS}", "--config.log_every=1", "--config.pretrain.evaluations=0"]


def walk_through(root, more):
    """Runs what the README and docs/ show for images of one's own, word for word, on small images and a tiny model.

    Then a part of a study, on digits, and `more`, `{key: (name, flags)}`.
    """
    for n in range(32):
        write(root / "photographs" / ("cats", "dogs")[n % 2] / f"{n // 2}.jpg", encode(gradient(40 + n, 50), "jpeg"))
    write(root / "photo.jpg", encode(gradient(50, 40), "jpeg"))
    (root / "PHOTOGRAPHS").symlink_to("photographs")
    for n in range(20):
        for kind, pixels in zip(("images", "masks"), scene(n)):
            write(root / "SCENES" / kind / f"{n}.png", encode(pixels))
    (root / "SCENES/classes.txt").write_text("0 ground\n1 square\n2 disc\n250 roof\n", encoding="utf-8")
    return run_forked({one: (one[0], adapted(*one)) for one in (*OWN_IMAGES, STUDY_OF_DIGITS)} | more, root)


def adapted(name, flags):
    """The flags of a command with a folder for the one that it leaves open, and with less to do."""
    flags = [re.sub("folder:(PATH|LABELLED)", "folder:photographs", flag) for flag in flags]
    if name not in ("pretrain", "finetune"):
        return flags
    lengths = [f"--config.{name}.{field}" for field in ("steps=1", "warmup_epochs=0", "batch_size=4")]
    sizes = ("depths=(1,)", "dims=(4,)", "stem_stride=32", "decoder_dim=8")
    return [*flags, *(f"--config.model.{size}" for size in sizes), *lengths]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def outcomes(root):
    """`{name: Outcome}` of all commands, and of one that is stopped with SIGTERM and started again."""
    preset = root / "tiny.py"
    preset.write_text(PRESET)
    flags = [f"--config={preset}", f"--workdir={root / 'long'}", *LONG]
    stopped = run("pretrain", *flags, during=terminate_after(root / "long" / "metrics.jsonl", 5))
    return {"stopped": stopped, **walk_through(root, {"gone on": ("pretrain", flags)})}


def assert_done(outcome):
    assert outcome.code == 0, outcome.errors
    assert outcome.errors == ""


def assert_lines(outcome, *patterns):
    """Asserts that each pattern matches a whole line, in this order."""
    lines = iter(outcome.lines)
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in lines), f"{pattern} in {outcome.output}"


def of(outcomes, name, text="", nth=0):
    """The outcome of the n-th command of a name that has some text among its flags."""
    return [outcome for key, outcome in outcomes.items() if key[0] == name and text in " ".join(key[1])][nth]


@pytest.mark.parametrize("one", OWN_IMAGES, ids=lambda one: " ".join((one[0], *one[1])))
def test_commands_for_ones_own_images_run_as_they_are_written(one, outcomes):
    assert_done(outcomes[one])


def test_a_study_runs_what_it_is_asked_for_and_makes_its_tables(outcomes, root):
    outcome = of(outcomes, "study")
    assert_done(outcome)
    assert_lines(
        outcome,
        "fewer_labels: pretrain seed_0/pretraining",
        r"  done in \d+ s",
        "No figures yet.",
        r"Top-1 on the test images by number of labels, .* `python -m launch.study --name=fewer_labels .*",
    )
    study = root / "runs" / "study"
    assert {"study.json", "results.json", "results.md", "results.png"} < {path.name for path in study.iterdir()}
    assert json.loads((study / "seed_0" / "pretraining" / "summary.json").read_text())["steps"] == 4


def test_pretraining_says_what_it_does_and_what_came_of_it(outcomes):
    assert_lines(
        of(outcomes, "pretrain"),
        "pretrain",
        "  devices       1 x .*",
        r"  images        26 to train on, as 224x224x3 \(validation 3, test 3\)",
        r"  model         fcmae, [\d,]+ parameters",
        r"  steps         1 \(0.1667 epochs of 6\), batch 4",
        "  optimizer     AdamW, peak rate 2.34e-06 after 0 steps, .*",
        "  workdir       runs/own",
        "  starts from   random weights",
        r"pretrain  step 1/1  loss [\d.]+ .*",
        "done: runs/own",
        "  task                 pretrain",
        "  steps                1",
        "  images               26",
        r"  validation_loss      [\d.]+",
        r"  feature_rank         [\d.]+",
        r"  feature_std          [\d.]+",
    )


def test_fine_tuning_starts_from_the_pretrained_encoder(outcomes):
    assert_lines(
        of(outcomes, "finetune"),
        "finetune",
        r"  images        20 to train on, as 224x224x3 \(validation 3, test 3\)",
        r"  starts from   runs/own/encoder.keras: \d+ variables loaded; newly initialised: .*head/kernel.*",
        r"finetune  step 1/1  loss [\d.]+ .*",
        "done: runs/own_finetuned",
        r"  test_top1            [\d.]+",
    )


def test_evaluation_prints_a_table_of_the_model_beside_a_random_one(outcomes, root):
    outcome = of(outcomes, "evaluate", "own_finetuned")
    assert_lines(
        outcome,
        "runs/own_finetuned/classifier.keras on 3 test images of folder:photographs",
        r"top-1 \(%\) +model +random",
        r"top1 +[\d.]+",
        r"knn +[\d.]+ +[\d.]+",
    )
    summary = json.loads((root / "runs" / "own_finetuned" / "summary.json").read_text())
    assert f"{summary['test_top1']:.2f}" in outcome.output


def test_a_model_is_exported_with_the_difference_from_keras(outcomes):
    difference = r"largest difference from Keras on 16 images of two photographs: [\d.e-]+"
    written = "classifier.onnx: logits of runs/own_finetuned/classifier.keras, described in classifier.onnx.json"
    assert_lines(of(outcomes, "export"), difference, written)


def test_features_are_extracted_and_searched(outcomes):
    assert_lines(of(outcomes, "extract"), "features.npz: 32 images, 4 features each")
    similar = r"  [01]\.\d{3,6}  (cats|dogs)/\d+\.jpg"
    assert_lines(of(outcomes, "search"), "photo.jpg", *[similar] * 8, "drawn: search.png")
    both = of(outcomes, "search", "dogs/7.jpg")
    assert_lines(both, "cats/1.jpg", *[similar] * 16, "dogs/7.jpg", *[similar] * 16, "drawn: pets.png")


def test_the_report_shows_both_runs_and_their_commands(outcomes, root):
    assert of(outcomes, "report").lines == ["written: report.html"]
    page = (root / "report.html").read_text(encoding="utf-8")
    for name in ("own", "own_finetuned"):
        summary = json.loads((root / "runs" / name / "summary.json").read_text())
        assert f"--workdir=runs/{name}" in page and f">{summary['images']:,}<" in page
    assert "python -m launch.finetune --config=own_images " in page


def test_masks_are_predicted_for_new_images(outcomes, root):
    assert_lines(of(outcomes, "predict"), "predicted: masks of 32 images")
    found = {str(path.relative_to(root / "predicted/masks")) for path in (root / "predicted/masks").rglob("*.png")}
    assert found == {f"{name}/{n}.png" for name in ("cats", "dogs") for n in range(16)}
    assert "IoU of each class on the test images" in (root / "segmentation.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", python_blocks("export"), ids=range(3))
def test_python_of_export_reads_what_the_commands_wrote(block, outcomes, root, monkeypatch):
    monkeypatch.chdir(root)
    exec(compile(block, "docs/export.md", "exec"), {})


def test_sigterm_saves_and_ends_with_code_0_and_a_message(outcomes):
    outcome = outcomes["stopped"]
    assert outcome.code == 0, outcome.errors
    (line,) = outcome.errors.splitlines()
    assert re.fullmatch(rf"Stopped at step \d+ of {STEPS}; run the same command to resume\.", line)


def test_the_same_command_goes_on_where_it_was_stopped(outcomes, root):
    assert_done(outcomes["gone on"])
    step = re.search(r"Stopped at step (\d+)", outcomes["stopped"].errors)[1]
    assert_lines(outcomes["gone on"], f"  starts from   its own checkpoint of step {step}", f"done: {root / 'long'}")
    steps = [json.loads(line) for line in (root / "long" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == list(range(1, STEPS + 1))
    segments = json.loads((root / "long" / "environment.json").read_text())["segments"]
    assert [(one["from_step"], one["to_step"]) for one in segments] == [(0, int(step)), (int(step), STEPS)]
    assert all(one["ended"] and one["command"].startswith("python -m launch.pretrain --config=") for one in segments)
