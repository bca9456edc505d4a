"""A loss or a weight that is not finite: the run stops, and names the step and the images."""

import json
import math
import pathlib
import types

import numpy as np
import pytest
import tensorflow as tf

from experiments import finetune, pretrain
from experiments.data.pipeline import endless_examples, examples_of_batch
from experiments.data.source import MemorySplit, Source, StreamSplit
from experiments.data.sources.mix import mix
from experiments.errors import RunError
from experiments.training.guards import Divergence
from experiments.training.loggers import read_metrics
from tests.experiments.images import encode, gradient, write
from tests.experiments.tiny import Lines, change, picture_config

COUNT, BATCH, SEED = 23, 4, 7
CONTENTS = np.array([f"image {i}".encode() for i in range(COUNT)], dtype=object)
LABELS = np.arange(COUNT, dtype=np.int64) % 3
MEMORY = MemorySplit(CONTENTS, LABELS)
STREAM = StreamSplit(tf.data.Dataset.from_tensor_slices((list(CONTENTS), LABELS)), COUNT, shuffle_buffer=5)
MIXED = mix([Source("a", {"train": MEMORY.take(np.arange(9))}, ()), Source("b", {"train": STREAM}, ())], [0.5, 0.5])


@pytest.mark.parametrize("split", [MEMORY, STREAM, STREAM.cached("encoded"), MIXED.split("train")])
@pytest.mark.parametrize("step", [1, 3, 12])
def test_the_examples_of_a_step_are_those_that_its_batch_had(split, step):
    stream = endless_examples(split, SEED, BATCH, np.arange(BATCH), 0).skip((step - 1) * BATCH).take(BATCH)
    contents = [content[-1] if isinstance(content, tuple) else content for _, content, _ in stream.as_numpy_iterator()]
    found = examples_of_batch(split, BATCH, SEED, step)
    assert [f"image {example['index']}".encode() for example in found] == contents
    if split is not MEMORY:  # which has no names
        assert any(name in found[0] for name in ("name", "source"))


def test_a_part_of_a_split_keeps_the_names():
    split = STREAM.take(np.array([4, 2, 9]))
    assert [split.find(i)["name"] for i in range(3)] == ["4", "2", "9"]
    assert split.take(np.array([2, 0])).find(1) == {"index": 1, "name": "4"}


def stop_of(check, *arguments):
    with pytest.raises(RunError) as caught:
        check(*arguments)
    return str(caught.value)


def test_the_first_step_of_the_window_whose_loss_is_not_finite_is_named(tmp_path):
    run = types.SimpleNamespace(
        workdir=tmp_path,
        workers=types.SimpleNamespace(is_chief=True),
        split=MEMORY,
        model=types.SimpleNamespace(trainable_variables=[]),
        training=types.SimpleNamespace(batch_size=BATCH),
        schedule=types.SimpleNamespace(steps_per_epoch=COUNT // BATCH),
        config=types.SimpleNamespace(seed=SEED),
    )
    checkpoints = types.SimpleNamespace(last_good="ckpt-5 is good")
    divergence = Divergence(run, checkpoints)
    divergence.check_losses([1.0, 2.0], [False] * 2, 6)
    assert not list(tmp_path.iterdir())
    message = stop_of(divergence.check_losses, [1.0, math.inf, math.nan, 3.0], [False] * 4, 9)
    assert message.startswith(f"The loss is inf at step 7; ckpt-5 is good; {tmp_path}/nonfinite")
    record = json.loads((tmp_path / "nonfinite.json").read_text())
    assert (record["step"], record["loss"]) == (7, "inf")
    assert [(batch["step"], batch["epoch"]) for batch in record["batches"]] == [(6, 1), (7, 1)]
    assert [example["position"] for example in record["batches"][1]["examples"]] == [4, 5, 6, 7]
    divergence = Divergence(run, checkpoints)  # of the next attempt
    assert not list(tmp_path.iterdir())
    # In float16, of steps that were skipped: two in a row pass, however often they are seen, and three end the run.
    divergence.check_losses([math.nan], [True], 10)
    divergence.check_losses([math.nan, math.inf], [True, True], 11)
    divergence.check_losses([math.nan, math.inf, 1.0, math.nan], [True, True, True, True], 13)
    divergence.check_losses([math.inf], [True], 14)
    assert stop_of(divergence.check_losses, [math.inf, math.nan], [True, True], 15).startswith(
        "The loss is nan at step 13"
    )


def test_a_run_whose_images_are_too_large_for_float32_names_them_and_keeps_its_checkpoint(tmp_path):
    """All are black but one, and what is black stays 0 however small the standard deviation."""
    folder = tmp_path / "images"
    for i in range(24):
        write(folder / f"{i}.png", encode(np.zeros((32, 32), np.uint8) if i != 5 else gradient(32, 32, 1)))
    training = {"batch_size": 2, "steps": 12, "normalize_targets": False}
    config = picture_config(folder, pretrain=training, log_every=12, checkpoint_every=1)
    config = change(config, "data", mean=(0.0,), std=(1e-30,))
    workdir = tmp_path / "run"
    message = stop_of(pretrain.run, config, workdir, "auto", Lines())
    record = json.loads((workdir / "nonfinite.json").read_text())
    step = record["step"]
    assert f" at step {step}; " in message and message.startswith("The loss is ")
    guilty = {pathlib.Path(example["name"]).name for example in record["batches"][-1]["examples"]}
    assert "5.png" in guilty and "5.png" in message
    newest = f"{workdir}/checkpoints/ckpt-{step - 1}" if step > 1 else "there is no checkpoint yet"
    assert newest in message


def test_the_step_is_exact_where_metrics_are_logged_now_and_then(pictures, tmp_path):
    training = {"base_learning_rate": 1e30, "weight_decay": 0.0}
    steps = []
    for name, every in (("each", 1), ("late", 8)):
        config = picture_config(pictures, finetune=training, log_every=every)
        stop_of(finetune.run, config, tmp_path / name, "auto", Lines())
        steps.append(json.loads((tmp_path / name / "nonfinite.json").read_text())["step"])
    assert steps[0] == steps[1] < 8
    assert len(read_metrics(tmp_path / "each")) == steps[0] - 1


def test_weights_that_are_not_finite_are_not_saved(pictures, tmp_path, monkeypatch):
    """The loss at the step is finite; only its gradient is not."""

    def break_weights(strategy, model, *arguments):
        def step(batch, question):
            model.trainable_variables[0].assign(model.trainable_variables[0] * np.nan)
            return {"loss": tf.constant(0.5), "unreadable": tf.constant(0.0)}

        return step

    monkeypatch.setattr("experiments.training.run.make_training_step", break_weights)
    config = picture_config(pictures, log_every=100, checkpoint_every=1)
    message = stop_of(finetune.run, config, tmp_path, "auto", Lines())
    assert "kernel is not finite after step 1, whose loss is 0.5; there is no checkpoint yet" in message
    assert not list((tmp_path / "checkpoints").glob("*.index"))
