"""A mistake of the user's: exit code 2, and one line that says what to do."""

import pytest

from tests.experiments.images import encode, gradient, write
from tests.launch.commands import PRESET, run_forked

COMMANDS = (
    "pretrain",
    "finetune",
    "evaluate",
    "demo",
    "benchmark",
    "prepare",
    "study",
    "export",
    "extract",
    "predict",
    "search",
    "report",
)

# name: (command, flags, what the line says); braces name what the fixture makes.
MISTAKES = {
    "no preset named": (
        "pretrain", ["--workdir={new}"],
        ["error: --config is missing: give a preset, one of camvid, cifar10, digits, ", " or the path of a file."],
    ),
    "unknown preset": (
        "pretrain", ["--config=digit", "--workdir={new}"],
        ["error: There is no preset or file 'digit': give a file, or one of camvid, cifar10, digits, "],
    ),
    "a preset in no folder": (
        "pretrain", ["--config=experiments/presets/digit.py", "--workdir={new}"],
        ["error: There is no preset or file 'experiments/presets/digit.py': give a file, or one of camvid, "
         "cifar10, digits, "],
    ),
    "a preset of a name too long for a file": (
        "pretrain", ["--config=" + "x" * 300, "--workdir={new}"], ["error: There is no preset or file 'xxx"],
    ),
    "an empty preset": (
        "pretrain", ["--config=", "--workdir={new}"], ["error: There is no preset or file '': give a file"],
    ),
    "no workdir": (
        "pretrain", ["--config={preset}"], ["error: --workdir is missing: add it, as in --workdir=runs/first."],
    ),
    "unknown field": (
        "pretrain", ["--config={preset}", "--workdir={new}", "--config.pretrain.epoch=3"],
        ["error: The configuration has no field pretrain.epoch. Did you mean pretrain.epochs"],
    ),
    "unknown section": (
        "pretrain", ["--config={preset}", "--workdir={new}", "--config.epochs=3"],
        ["error: The configuration has no field epochs. Did you mean pretrain.epochs or finetune.epochs?"],
    ),
    "wrong type": (
        "pretrain", ["--config={preset}", "--workdir={new}", "--config.pretrain.epochs=many"],
        ["error: ", "pretrain.epochs", "many"],
    ),
    "image size": (
        "pretrain", ["--config={preset}", "--workdir={new}", "--config.data.image_size=36"],
        ["error: data.image_size=36: An image of 36x36 cannot be cut", "nearest sizes that do are 32x32 and 40x40."],
    ),
    "mask ratio": (
        "pretrain", ["--config={preset}", "--workdir={new}", "--config.pretrain.mask_ratio=1.5"],
        ["error: pretrain.mask_ratio, the fraction of masked patches, must be in (0, 1), got 1.5."],
    ),
    "unknown flag": (
        "pretrain", ["--config={preset}", "--workdri={new}"],
        ["error: There is no flag --workdri. Did you mean workdir?"],
    ),
    "a word that is not a flag": (
        "pretrain", ["--config={preset}", "--workdir={new}", "epochs=3"],
        ["error: unexpected argument 'epochs=3': flags begin with --."],
    ),
    "folder without images": (
        "pretrain", ["--config={preset}", "--workdir={new}", "--config.data.source=folder:{texts}"],
        ["error: {texts} holds no image files"],
    ),
    "missing folder": (
        "pretrain", ["--config={preset}", "--workdir={new}", "--config.data.source=folder:{nowhere}"],
        ["error: There is no folder {nowhere}."],
    ),
    "batch larger than the data": (
        "pretrain", ["--config={preset}", "--workdir={new}", "--config.data.source=folder:{pictures}"],
        ["error: pretrain.batch_size=32 is more than the 4 training images: use --config.pretrain.batch_size=4"],
    ),
    "several workers that nobody names": (
        "pretrain", ["--config={preset}", "--workdir={new}", "--config.distribution=multiworker"],
        ["error: distribution=multiworker needs TF_CONFIG, or Slurm's variables (start the command with srun)"],
    ),
    "batch that does not divide": (
        "pretrain", ["--config={preset}", "--workdir={new}", "--config.logical_cpus=3"],
        ["error: pretrain.batch_size=32 is not divisible by 3 devices x 1 accumulation steps; use 30 or 33."],
    ),
    "missing pretrained": (
        "finetune", ["--config={preset}", "--workdir={new}", "--config.pretrained={nowhere}"],
        ["error: pretrained={nowhere}: There is no {nowhere}: pretrained weights are a run's workdir, or a Keras"],
    ),
    "pretrained that does not fit": (
        "finetune", ["--config={preset}", "--workdir={new}", "--config.pretrained={foreign}"],
        ["error: pretrained={foreign}: {foreign} does not fit the model (0 of "],
    ),
    "a preset of sizes without one": (
        "pretrain", ["--config=imagenet_pretrain", "--workdir={new}"],
        ["error: imagenet_pretrain: it needs a size; name one of atto, femto, ", "--config=imagenet_pretrain:atto."],
    ),
    "a size that does not exist": (
        "finetune", ["--config=imagenet_finetune:small", "--workdir={new}"],
        ["error: imagenet_finetune: 'small' is not one of its sizes; name one of atto, femto, "],
    ),
    "a wrong value beside a size": (
        "pretrain",
        ["--config", "imagenet_pretrain:huge", "--workdir={new}", "--config.pretrain.epochs=0"],
        ["error: pretrain.epochs must be at least 1, got 0."],
    ),
    "a broken preset": (
        "pretrain", ["--config={broken}", "--workdir={new}"],
        ["error: The preset {broken} cannot be used: SyntaxError: "],
    ),
    "a preset without configuration": (
        "pretrain", ["--config={empty}", "--workdir={new}"],
        ["error: The preset {empty} cannot be used: KeyError: 'get_config'"],
    ),
    "a preset with an unknown field": (
        "pretrain", ["--config={unknown}", "--workdir={new}"],
        ["error: The preset {unknown} cannot be used: TypeError: ", "unexpected keyword argument 'step'"],
    ),
    "a preset with a wrong value": (
        "pretrain", ["--config={wrong}", "--workdir={new}"], ["error: pretrain.batch_size must be at least 1, got 0."],
    ),
    "no model": ("evaluate", [], ["error: --model is missing: add it, as in --model=runs/own."]),
    "missing model": ("evaluate", ["--model={nowhere}"], ["error: --model={nowhere}: There is no {nowhere}"]),
    "unknown probe": ("evaluate", ["--model={nowhere}", "--probe=svm"], ["error: ", "--probe", "svm"]),
    "nothing to export": ("export", [], ["error: --model is missing: add it, as in --model=runs/own."]),
    "flag of another command": (
        "prepare", ["--source=tfds:x", "--dir={new}"], ["error: There is no flag --dir. Did you mean data_dir?"],
    ),
    "no output": ("export", ["--model={nowhere}"], ["error: --output is missing: add it, as in --output=model.onnx."]),
    "no format": (
        "export", ["--model={nowhere}", "--output={new}"],
        ["error: --output={new} does not end with .onnx or .tflite: change it, or add --format=saved_model."],
    ),
    "unknown format": (
        "export", ["--model={nowhere}", "--format=caffe", "--output={new}"], ["error: ", "--format=caffe", "onnx"],
    ),
    "type of pixels that are not normalized": (
        "export", ["--model={nowhere}", "--format=onnx", "--output={new}", "--input_dtype=uint8"],
        ["error: --input_dtype is for pixels that the model normalizes: add --preprocessing=inside."],
    ),
    "folder of no images to compare on": (
        "export", ["--model={nowhere}", "--format=onnx", "--output={new}", "--data_dir={new}"],
        ["error: --data_dir is for the images that --data names, as in --data=tfds:NAME."],
    ),
    "missing model to export": (
        "export", ["--model={nowhere}", "--format=onnx", "--output={new}"],
        ["error: --model={nowhere}: There is no {nowhere}"],
    ),
    "nothing to extract with": ("extract", [], ["error: --model is missing: add it, as in --model=runs/own."]),
    "nowhere to extract to": (
        "extract", ["--model={nowhere}"], ["error: --output is missing: add it, as in --output="],
    ),
    "missing model to extract with": (
        "extract", ["--model={nowhere}", "--output={new}.npz"], ["error: --model={nowhere}: There is no {nowhere}"],
    ),
    "nothing to predict on": (
        "predict", ["--model={nowhere}"], ["error: --data is missing: add it, as in --data=images."],
    ),
    "a model that predicts no masks": (
        "predict", ["--model={nowhere}", "--data={pictures}", "--output={new}"],
        [
            "error: --model={nowhere} has no model of a segmentation run: name the workdir of one that is complete, or "
            "a segmenter*.keras in it."
        ],
    ),
    "segmentation of images without masks": (
        "finetune",
        ["--config=own_masks", "--config.data.source=folder:{pictures}", "--workdir={new}"],
        ["error: {pictures} has no folders images and masks, which segmentation needs."],
    ),
    "nothing to search": (
        "search", ["--features={nowhere}.npz"], ["error: --query is missing: add it, as in --query=photo."],
    ),
    "missing features": (
        "search", ["--features={nowhere}.npz", "--query=a", "--output={new}.png"],
        ["error: There is no {nowhere}.npz: make it with launch.extract."],
    ),
    "nothing to prepare": ("prepare", [], ["error: --source is missing: add it, as in --source=tfds:fashion_mnist."]),
    "images that need no preparation": (
        "prepare", ["--source=digits"], ["error: --source=digits: only tfds:NAME and folder:PATH can be prepared;"],
    ),
    "splits of what has none": (
        "pretrain", ["--config={preset}", "--workdir={new}", "--config.data.train_split=train"],
        ["error: data.train_split is for data sets of TensorFlow Datasets; data.source='digits' is not."],
    ),
    "fine-tuning on a mix": (
        "finetune", ["--config={preset}", "--workdir={new}", "--config.data.source=digits+folder:{pictures}"],
        ["error: the mix of digits and folder:{pictures} has no labels to fine-tune on."],
    ),
    "nothing to measure": (
        "benchmark", [], ["error: --what is missing: give one of step, memory, input."],
    ),
    "ratio that is no number": (
        "benchmark", ["--what=step", "--mask_ratio=0.4,half"],
        ["error: --mask_ratio=0.4,half: give one or more numbers, such as 0.4,0.6."],
    ),
    "unknown candidate": (
        "benchmark", ["--what=step", "--candidates=sparse,fast"],
        ["error: candidates='fast' is not one of sparse, dense, pytorch."],
    ),
    "a flag that is not for what is measured": (
        "benchmark", ["--what=input", "--candidates=sparse"],
        ["error: --candidates does not apply to --what=input: leave it out."],
    ),
    "no study named": ("study", ["--workdir={new}"], ["error: --name is missing: give one of fewer_labels, "]),
    "no folder for a study": (
        "study", ["--name=ablations"], ["error: --workdir is missing: add it, as in --workdir=runs/"],
    ),
    "tables of no study": (
        "study", ["--workdir={nowhere}", "--tables_only"], ["error: {nowhere} holds no study: run it first"],
    ),
    "an unknown field of a study": (
        "study", ["--name=ablations", "--workdir={new}", "--config.pretrain.epoch=3"],
        ["error: The configuration has no field pretrain.epoch. Did you mean pretrain.epochs"],
    ),
    "file of figures in no folder": (
        "benchmark", ["--what=step", "--json={nowhere}/step.json"],
        ["error: --json={nowhere}/step.json cannot be written: name a file in a folder that exists."],
    ),
    "nothing to report on": ("report", [], ["error: No run is given: name one or more workdirs, such as"]),
    "a report on no run": (
        "report", ["{pictures}", "--output={new}.html"], ["error: {pictures} is not the workdir of a run: it has no"],
    ),
    "a wrong flag after arguments": (
        "report", ["{pictures}", "--outptu=x.html"], ["error: There is no flag --outptu. Did you mean output?"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Files and folders that the flags name."""
    import keras

    root = tmp_path_factory.mktemp("places")
    write(root / "texts" / "a.txt", b"text")
    for i in range(4):
        write(root / "pictures" / f"{i}.png", encode(gradient(16, 16)))
    (root / "preset.py").write_text(PRESET)
    (root / "broken.py").write_text("def get_config(:\n")
    (root / "wrong.py").write_text(PRESET.replace('"batch_size": 32', '"batch_size": 0'))
    (root / "empty.py").write_text('"""Nothing."""')
    (root / "unknown.py").write_text(PRESET.replace('"steps"', '"step"'))
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(root / "foreign.keras")
    presets = {name: root / f"{name}.py" for name in ("preset", "broken", "empty", "unknown", "wrong")}
    folders = {name: root / name for name in ("texts", "pictures", "nowhere", "new")}
    return {**presets, **folders, "foreign": root / "foreign.keras"}


@pytest.fixture(scope="module")
def outcomes(places):
    """`{name: Outcome}` of all mistakes, and of `--help`."""
    commands = {
        name: (command, [flag.format(**places) for flag in flags]) for name, (command, flags, _) in MISTAKES.items()
    }
    helps = {f"help {name}": (name, ["--help"]) for name in COMMANDS}
    return run_forked({**commands, **helps})


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_code_2_and_one_line(outcomes, places, mistake):
    outcome = outcomes[mistake]
    assert outcome.code == 2, outcome.errors
    (line,) = outcome.errors.splitlines()
    for part in MISTAKES[mistake][2]:
        assert part.format(**places) in line


def test_a_mistake_leaves_no_workdir(outcomes, places):
    assert outcomes and not places["new"].exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_how_the_command_is_used_without_a_traceback(outcomes, name):
    outcome = outcomes[f"help {name}"]
    assert outcome.code in (0, 1) and outcome.errors == ""
    assert f"python -m launch.{name} " in outcome.output
    assert any(f"--{flag}=" in outcome.output for flag in ("workdir", "model", "what", "source", "query", "output"))
