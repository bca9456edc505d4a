"""The typed configuration of a run: fields, defaults and validation.

A preset makes a `Config`; the command line overrides its fields (`--config.pretrain.epochs=50`). Sections are immutable
and validated on construction. Steps and peak rate, which depend on the data too, are computed in
`experiments.training.schedule`.
"""

from experiments.config.data import (
    AUTO,
    IMAGE_SETTINGS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LARGEST_NUMBER,
    MAX_PIXELS,
    SPLIT_FIELDS,
    DataConfig,
    height_and_width,
    kept_size,
    parse_size,
    size_text,
)
from experiments.config.model import ModelConfig
from experiments.config.run import Config, WandbConfig
from experiments.config.section import Section, from_mapping, require
from experiments.config.training import CROPS, FinetuneConfig, PretrainConfig, SegmentationConfig, TrainingConfig
