"""A run that needs more memory than there is ends with the flags that make it need less."""

import dataclasses

import pytest
import tensorflow as tf

from experiments import pretrain
from experiments.errors import RunError
from tests.experiments.tiny import Lines, change, picture_config


def lack(error):
    def fail():
        raise error

    return fail


EXHAUSTED = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[8,96,56,56]")
CUDA = tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: out of memory")


@pytest.mark.parametrize(
    ("error", "training", "remat", "flags"),
    [
        (
            EXHAUSTED,
            {},
            "none",
            "trains on 16 images at a time and evaluates 256. Use --config.pretrain.accumulation_steps=2 or "
            "--config.model.remat=block or a smaller --config.pretrain.batch_size (with --resume=anyway); if "
            "evaluation ran out of memory, use a smaller --config.evaluation_batch_size.",
        ),
        (
            CUDA,
            {"batch_size": 15, "accumulation_steps": 3},
            "block",
            "trains on 5 images at a time and evaluates 256. Use --config.pretrain.accumulation_steps=5 or a smaller ",
        ),
        (MemoryError(), {"batch_size": 3, "accumulation_steps": 3}, "block", "Use a smaller --config.pretrain.batch"),
    ],
    ids=["device", "cuda", "host"],
)
def test_it_ends_with_what_to_change_and_the_last_checkpoint(
    pictures, tmp_path, at_step, error, training, remat, flags
):
    config = picture_config(pictures, pretrain={"steps": 3, **training}, model={"stem_stride": 4})
    config = change(config, "model", remat=remat)
    at_step(3, lack(error))
    with pytest.raises(RunError) as caught:
        pretrain.run(dataclasses.replace(config, checkpoint_every=2), tmp_path, log=Lines())
    text = str(caught.value)
    assert text.startswith("Out of memory: a device ") and flags in text
    assert text.endswith(f"The last good checkpoint is {tmp_path}/checkpoints/ckpt-2.")


def test_other_errors_of_a_device_are_shown_as_they_are(pictures, tmp_path, at_step):
    at_step(1, lack(tf.errors.InternalError(None, None, "the device is gone")))
    config = picture_config(pictures, pretrain={"steps": 1}, model={"stem_stride": 4})
    with pytest.raises(tf.errors.InternalError):
        pretrain.run(config, tmp_path, log=Lines())
