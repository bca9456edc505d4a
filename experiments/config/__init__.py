"""The typed configuration of an experiment: fields, defaults, validation.

A preset makes a `Config`; the command line overrides fields of it (`--config.pretrain.epochs=50`). Everything is
validated when it is made and never changed afterwards. What follows from the configuration and the data
together (steps, peak rate) is computed in `experiments.training.schedule`.
"""

from experiments.config.data import DataConfig
from experiments.config.experiment import Config, WandbConfig
from experiments.config.finetuning import FinetuneConfig
from experiments.config.model import ModelConfig
from experiments.config.training import PretrainConfig, TrainingConfig

__all__ = ["Config", "DataConfig", "FinetuneConfig", "ModelConfig", "PretrainConfig", "TrainingConfig", "WandbConfig"]
