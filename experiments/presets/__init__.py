"""Presets: one short file each, with `get_config()`, or `get_config(size)` for `--config=NAME:SIZE`."""

from typing import Any

from convnext import ConvNeXtV2
from experiments.config import DataConfig
from experiments.errors import UserError

# Fine-tuning of atto in the paper (ConvNeXt V2, appendix A), without lengths, batches, crops and rates.
FINETUNING_OF_ATTO: dict[str, Any] = {
    "min_learning_rate": 1e-6,
    "weight_decay": 0.3,
    "layer_decay": 0.9,
    "layer_decay_groups": "single",
    "head_init_scale": 0.001,
    "drop_path_rate": 0.1,
    "label_smoothing": 0.2,
    "randaugment_magnitude": 9.0,
    "erasing_probability": 0.25,
}


def check_size(size: str, preset: str) -> None:
    """Raises UserError unless a preset is named with one of the published sizes of ConvNeXt V2.

    Args:
        size: the text after the colon; empty without one.
        preset: name of the preset.
    """
    if size not in ConvNeXtV2.MODEL_VARIANTS:
        given = f"{size!r} is not one of its sizes" if size else "it needs a size"
        raise UserError(
            f"{preset}: {given}; name one of {', '.join(ConvNeXtV2.MODEL_VARIANTS)}, such as --config={preset}:atto."
        )


def imagenet_data() -> DataConfig:
    """Returns the `DataConfig` of ImageNet-1K at 224x224 pixels, from TensorFlow Datasets or a folder."""
    return DataConfig(
        source="tfds:imagenet2012",
        test_split="validation",  # the one called test has no labels
        image_size=224,
        validation_share=0.0,
        test_share=0.0,  # of a folder: all of `train` is trained on
        shuffle_buffer=10000,  # about 1.1 GB for each reader; the order on the disk is random already
    )
