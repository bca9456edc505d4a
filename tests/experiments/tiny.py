"""Experiments that take seconds: configurations, and the lines that a person sees."""

import dataclasses

from experiments.config import Config, DataConfig, FinetuneConfig, ModelConfig, PretrainConfig

ONE_STAGE = {"depths": (1,), "dims": (4,), "stem_stride": 8}
TWO_STAGES = {"depths": (1, 1), "dims": (4, 8), "stem_stride": 4}
QUIET = {
    "evaluations": 0,
    "warmup_epochs": 0,
    "batch_size": 16,
    "steps": 8,
    "base_learning_rate": 0.1,
    "crop": "resized",
}


def tiny_config(pretrain=(), finetune=(), data=(), model=(), **arguments):
    """A `Config` of digits at 32x32 pixels with a grid of 4x4 patches, a block and 8 steps; mappings change it."""
    shared = {"image_size": 32, "channels": 1, "mean": (0.3,), "std": (0.35,), "flip": False, "evaluation_crop": 1.0}
    return Config(
        **{
            "model": ModelConfig(**{**ONE_STAGE, "decoder_dim": 8, **dict(model)}),
            "data": DataConfig(**{**shared, **dict(data)}),
            "pretrain": PretrainConfig(**{**QUIET, "pictures": 0, **dict(pretrain)}),
            "finetune": FinetuneConfig(**{**QUIET, "labels": "100", "head_init_scale": 1.0, **dict(finetune)}),
            "log_every": 1,
            "checkpoint_every": 100,
            **arguments,
        }
    )


def picture_config(folder, **arguments):
    """A `tiny_config` that trains on all images of a folder and evaluates nothing: 3 steps an epoch of `pictures`."""
    data = {"source": f"folder:{folder}", "validation_share": 0.0, "test_share": 0.0}
    return tiny_config(data=data, finetune={"labels": "all", **arguments.pop("finetune", {})}, **arguments)


def change(config, section, **values):
    """The configuration with other values in a section."""
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


class Lines(list):
    """Collects what a run logs; to be given as `log`."""

    def __call__(self, line):
        self.append(line)

    @property
    def text(self):
        return "\n".join(self)
