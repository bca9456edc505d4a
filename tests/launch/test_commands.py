"""Commands that do their work: pretrain, fine-tune, evaluate, export, extract, search, stop and go on."""

import concurrent.futures
import json
import re

import pytest

from tests.launch.commands import PRESET, run, run_forked, terminate_after

LONG = ["--config.pretrain.steps=400", "--config.log_every=1", "--config.pretrain.evaluations=0"]


def chain(root, preset):
    """Pretrains, fine-tunes from it, evaluates and exports the result, and searches with it."""
    commands = {
        "pretrain": ("pretrain", [f"--workdir={root / 'pre'}"]),
        "finetune": ("finetune", [f"--config.pretrained={root / 'pre'}", f"--workdir={root / 'fine'}"]),
    }
    commands = {name: (command, [f"--config={preset}", *flags]) for name, (command, flags) in commands.items()}
    runs = [str(root / "pre"), f"--output={root / 'report.html'}", str(root / "fine")]
    commands["report"] = ("report", runs)
    commands["evaluate"] = ("evaluate", [f"--model={root / 'fine'}", "--probe=top1", "--probe=knn"])
    commands["export"] = (
        "export",
        [f"--model={root / 'fine'}", "--format=saved_model", f"--output={root / 'exported'}", "--preprocessing=inside"],
    )
    extracted = [f"--model={root / 'pre'}", "--split=validation", f"--output={root / 'features.npz'}"]
    search = [f"--features={root / 'features.npz'}", "--query=validation/3", "--k=2", f"--output={root / 'found.png'}"]
    return run_forked({**commands, "extract": ("extract", extracted), "search": ("search", search)})


def stop_and_go_on(root, preset):
    """Stops a run with SIGTERM, and starts its command again."""
    command = ("pretrain", f"--config={preset}", f"--workdir={root / 'long'}", *LONG)
    stopped = run(*command, during=terminate_after(root / "long" / "metrics.jsonl", 5))
    return {"stopped": stopped, "gone on": run(*command)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def outcomes(root):
    """`{name: Outcome}` of all commands."""
    preset = root / "tiny.py"
    preset.write_text(PRESET)
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        parts = [executor.submit(sequence, root, preset) for sequence in (chain, stop_and_go_on)]
        return {name: outcome for part in parts for name, outcome in part.result().items()}


def assert_done(outcome):
    assert outcome.code == 0, outcome.errors
    assert outcome.errors == ""


def assert_lines(outcome, *patterns):
    """Asserts that each pattern matches a whole line, in this order."""
    lines = iter(outcome.lines)
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in lines), f"{pattern} in {outcome.output}"


def test_pretraining_says_what_it_does_and_what_came_of_it(outcomes, root):
    outcome = outcomes["pretrain"]
    assert_done(outcome)
    assert_lines(
        outcome,
        "pretrain",
        "  devices       1 x .*",
        "  dataset       digits, 10 classes",
        r"  images        1,078 to train on, as 32x32x1 \(validation 180, test 539\)",
        r"  model         fcmae, [\d,]+ parameters",
        r"  steps         4 \(0.1212 epochs of 33\), batch 32",
        "  optimizer     AdamW, peak rate 1.87e-05 after 0 steps, .*",
        f"  workdir       {root / 'pre'}",
        "  starts from   random weights",
        r"pretrain  step 4/4  loss [\d.]+ .*",
        f"done: {root / 'pre'}",
        "  task                 pretrain",
        "  steps                4",
        "  images               1078",
        r"  validation_loss      [\d.]+",
    )


def test_fine_tuning_starts_from_the_pretrained_encoder(outcomes, root):
    outcome = outcomes["finetune"]
    assert_done(outcome)
    assert_lines(
        outcome,
        "finetune",
        r"  images        100 to train on, as 32x32x1 \(validation 180, test 539\)",
        rf"  starts from   {root / 'pre' / 'encoder.keras'}: \d+ variables loaded; newly initialised: .*head/kernel.*",
        r"finetune  step 4/4  loss [\d.]+ .*",
        f"done: {root / 'fine'}",
        r"  test_top1            [\d.]+",
    )


def test_evaluation_prints_a_table_of_the_model_beside_a_random_one(outcomes, root):
    outcome = outcomes["evaluate"]
    assert_done(outcome)
    assert_lines(
        outcome,
        f"{root / 'fine' / 'classifier.keras'} on 539 test images of digits",
        r"top-1 \(%\) +model +random",
        r"top1 +[\d.]+ +[\d.]+",
        r"knn +[\d.]+ +[\d.]+",
    )
    summary = json.loads((root / "fine" / "summary.json").read_text())
    assert f"{summary['test_top1']:.2f}" in outcome.output


def test_a_model_is_exported_with_the_difference_from_keras(outcomes, root):
    outcome = outcomes["export"]
    assert_done(outcome)
    difference = r"largest difference from Keras on 16 images of two photographs: [\d.e-]+"
    written = rf"{root / 'exported'}: logits of {root / 'fine' / 'classifier.keras'}, described in exported.json"
    assert_lines(outcome, difference, written)


def test_features_are_extracted_and_searched(outcomes, root):
    assert_done(outcomes["extract"])
    assert_lines(outcomes["extract"], rf"{root / 'features.npz'}: 180 images, 4 features each")
    assert_done(outcomes["search"])
    similar = r"  [01]\.\d{3,6}  validation/\d+"
    assert_lines(outcomes["search"], "validation/3", similar, similar, f"drawn: {root / 'found.png'}")


def test_the_report_shows_both_runs_and_their_commands(outcomes, root):
    assert_done(outcomes["report"])
    assert outcomes["report"].lines == [f"written: {root / 'report.html'}"]
    page = (root / "report.html").read_text(encoding="utf-8")
    for name in ("pre", "fine"):
        summary = json.loads((root / name / "summary.json").read_text())
        assert f"--workdir={root / name}" in page and f">{summary['images']:,}<" in page
    assert f"python -m launch.finetune --config={root / 'tiny.py'} --config.pretrained={root / 'pre'} " in page


def test_sigterm_saves_and_ends_with_code_0_and_a_message(outcomes):
    outcome = outcomes["stopped"]
    assert outcome.code == 0, outcome.errors
    (line,) = outcome.errors.splitlines()
    assert re.fullmatch(r"Stopped at step [\d,]+ of 400; the same command goes on from there\.", line)


def test_the_same_command_goes_on_where_it_was_stopped(outcomes, root):
    assert_done(outcomes["gone on"])
    step = re.search(r"Stopped at step ([\d,]+)", outcomes["stopped"].errors)[1]
    assert_lines(outcomes["gone on"], f"  starts from   its own checkpoint of step {step}", f"done: {root / 'long'}")
    steps = [json.loads(line) for line in (root / "long" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == list(range(1, 401))
    segments = json.loads((root / "long" / "environment.json").read_text())["segments"]
    stopped = int(step.replace(",", ""))
    assert [(one["from_step"], one["to_step"]) for one in segments] == [(0, stopped), (stopped, 400)]
    assert all(one["ended"] and one["command"].startswith("python -m launch.pretrain --config=") for one in segments)
