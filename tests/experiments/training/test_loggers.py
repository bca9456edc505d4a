"""Where metrics and pictures go, and what a run does when its loss is no longer finite."""

import dataclasses
import io
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from experiments import finetune, pretrain
from experiments.config import Config, WandbConfig
from experiments.errors import RunError, UserError
from experiments.training.loggers import Loggers, read_metrics
from experiments.training.loop import Window
from tests.experiments.images import broken_inside, gradient, write
from tests.experiments.tiny import Lines, picture_config

pytestmark = pytest.mark.figures("augmentation")


def begin(workdir, start_step):
    loggers = Loggers(workdir, Config())
    loggers.begin(start_step)
    return loggers


def test_all_metrics_of_a_step_make_one_line_that_is_readable_at_once(tmp_path):
    loggers = begin(tmp_path, 0)
    loggers.scalars(3, {"loss": 0.5})
    loggers.scalars(3, {"validation_loss": 0.25})
    loggers.flush()
    assert read_metrics(tmp_path) == [{"step": 3, "loss": 0.5, "validation_loss": 0.25}]
    loggers.flush()
    loggers.scalars(5, {"loss": 0.4})
    loggers.scalars(6, {"loss": 0.3})
    assert [line["step"] for line in read_metrics(tmp_path)] == [3, 5]
    loggers.close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [3, 5, 6]


def events(workdir):
    """What TensorBoard finds: `{name: [(step, value)]}`, of a picture its pixels."""
    found = {}
    for path in sorted((workdir / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                number = value.simple_value
                if value.HasField("image"):
                    number = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string))).tolist()
                    assert (value.image.height, value.image.width) == np.shape(number)[:2]
                found.setdefault(value.tag, []).append((event.step, number))
    return found


def test_tensorboard_gets_metrics_and_pictures(tmp_path):
    Image.fromarray(np.arange(6, dtype="uint8").reshape(2, 3)).save(tmp_path / "one.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    loggers = begin(tmp_path, 0)
    loggers.pictures(3, {"gone": tmp_path / "gone.png", "broken": tmp_path / "broken.png", "one": tmp_path / "one.png"})
    loggers.scalars(3, {"loss": 0.5})
    loggers.scalars(3, {"validation_loss": 0.25})
    loggers.close()
    assert events(tmp_path) == {
        "one": [(3, [[0, 1, 2], [3, 4, 5]])],
        "loss": [(3, 0.5)],
        "validation_loss": [(3, 0.25)],
    }
    loggers = begin(tmp_path, 2)  # resumed before step 3
    loggers.scalars(3, {"loss": 0.5})
    loggers.close()
    assert events(tmp_path)["loss"] == [(3, 0.5), (3, 0.5)]
    begin(tmp_path, 0).close()
    assert events(tmp_path) == {}


def test_the_loggers_leave_the_training_alone(pictures, tmp_path):
    training = {"steps": 4, "drop_path_rate": 0.5, "mixup_alpha": 0.8}
    config = picture_config(pictures, finetune=training, seed=1)
    settings = {"none": (False, "disabled"), "all": (True, "offline")}
    weights = {}
    for name, (tensorboard, mode) in settings.items():
        own = dataclasses.replace(config, tensorboard=tensorboard, wandb=WandbConfig(mode=mode))
        finetune.run(own, tmp_path / name, log=Lines())
        model = keras.saving.load_model(tmp_path / name / "classifier.keras", compile=False)
        weights[name] = [np.asarray(variable.value) for variable in model.weights]
    assert len(events(tmp_path / "all")["loss"]) == 4 and "augmentation" in events(tmp_path / "all")
    assert not (tmp_path / "none" / "tensorboard").exists()
    for one, other in zip(weights["none"], weights["all"], strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_window_goes_on_from_its_text():
    steps = [{"loss": 1.0, "unreadable": 0.0}, {"loss": 2.0, "unreadable": 1.0}, {"loss": 6.0, "unreadable": 2.0}]
    whole, first = Window(8), Window(8)
    for step in steps:
        whole.add(step)
    for step in steps[:2]:
        first.add(step)
    second = Window(8, first.to_text())
    second.add(steps[2])
    for name, value in (("loss", 3.0), ("unreadable", 3.0)):
        assert second.metrics()[name] == whole.metrics()[name] == value


def test_a_run_that_goes_on_drops_what_came_after_its_checkpoint(tmp_path):
    loggers = begin(tmp_path, 0)
    for step in range(1, 6):
        loggers.scalars(step, {"loss": float(step)})
    loggers.close()
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')  # it was killed while it wrote
    loggers = begin(tmp_path, 3)
    loggers.scalars(4, {"loss": 40.0})
    loggers.close()
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 40)]


def test_a_new_run_in_a_folder_of_old_lines_begins_anew(tmp_path):
    begin(tmp_path, 0).scalars(1, {"loss": 1.0})
    begin(tmp_path, 0).close()
    assert read_metrics(tmp_path) == []


def test_a_window_gives_means_and_the_sum_of_unreadable_images():
    window = Window(batch_size=8)
    for loss, unreadable in ((1.0, 2.0), (4.0, 0.0), (1.0, 1.0)):
        window.add({"loss": np.float32(loss), "unreadable": np.float32(unreadable)})
    metrics = window.metrics()
    assert (metrics["loss"], metrics["unreadable"]) == (2.0, 3.0)
    assert metrics["images_per_second"] > 0
    window.clear()
    window.start()
    window.add({"loss": np.float32(7.0)})
    assert window.metrics()["loss"] == 7.0


@pytest.mark.parametrize(
    ("checkpoint_every", "good"), [(1, "the last good checkpoint is {}/checkpoints/ckpt-"), (100, "no checkpoint yet")]
)
def test_a_loss_that_is_no_longer_finite_ends_the_run_and_names_step_and_checkpoint(
    pictures, tmp_path, checkpoint_every, good
):
    training = {"base_learning_rate": 1e30, "weight_decay": 0.0}
    config = picture_config(pictures, finetune=training, checkpoint_every=checkpoint_every)
    with pytest.raises(RunError) as caught:
        finetune.run(config, tmp_path, log=Lines())
    message = str(caught.value)
    lines = read_metrics(tmp_path)
    assert all(math.isfinite(line["loss"]) for line in lines)
    step = lines[-1]["step"] + 1 if lines else 1
    assert message.startswith(("The loss is nan", "The loss is inf")) and f" at step {step}; " in message
    assert good.format(tmp_path) in message
    if checkpoint_every == 1:
        assert f"ckpt-{step - 1};" in message
    assert not (tmp_path / "summary.json").exists()


def test_a_disabled_wandb_leaves_no_trace_and_a_folder_without_labels_cannot_be_fine_tuned(pictures, tmp_path):
    config = picture_config(pictures / "class_0")
    with pytest.raises(UserError, match="folder:.*class_0 has no labels to fine-tune on."):
        finetune.run(config, tmp_path, log=Lines())
    assert not (tmp_path / "config.json").exists()
    summary = pretrain.run(
        picture_config(pictures / "class_0", pretrain={"steps": 1, "batch_size": 4}), tmp_path, log=Lines()
    )
    assert summary["images"] == 16 and "validation_loss" not in summary
    assert not (tmp_path / "wandb").exists()


def test_a_run_in_which_no_image_can_be_read_fails(tmp_path):
    folder = tmp_path / "images"
    for i in range(40):
        write(folder / f"{i}.png", broken_inside(gradient(16, 16)))
    config = picture_config(folder)
    with pytest.raises(RunError, match="No image up to step"):
        pretrain.run(config, tmp_path / "run", log=Lines())
