"""Fashion-MNIST for the studies: the preset `fashion_mnist` with an encoder that trains in half the time.

    python -m launch.study --name=fewer_labels --workdir=runs/study
    python -m launch.study --name=ablations --workdir=runs/ablations
    python -m launch.pretrain --config=fashion_mnist_study --workdir=runs/fashion_mnist_study
    python -m launch.finetune --config=fashion_mnist_study \
        --config.pretrained=runs/fashion_mnist_study --workdir=runs/fashion_mnist_study_finetuned

`--config.data.dir=FOLDER` names the folder of a prepared data set.

Expected: the tables of docs/study.md. Cost: `--plan` lists the runs of a study with an estimate.

The studies set labels, lengths, batches and rates of fine-tuning themselves, see `experiments.studies.budgets`.
"""

import dataclasses

from ml_collections import config_dict

from experiments.config import Config, ModelConfig
from experiments.presets import fashion_mnist


def get_config() -> config_dict.ConfigDict:
    """Returns the preset."""
    config = Config.from_dict(fashion_mnist.get_config().to_dict())
    return dataclasses.replace(
        config,
        model=ModelConfig(depths=(1, 2, 2), dims=(24, 48, 96), stem_stride=2, decoder_dim=96),
        # Of rates, crops, patch sizes and mask ratios that were tried for a short time, what did best on the validation
        # images after fine-tuning with 600 labels; see docs/study.md.
        pretrain=dataclasses.replace(config.pretrain, base_learning_rate=6e-3),
        # An average of so few steps would be that of the first weights.
        finetune=dataclasses.replace(config.finetune, ema_decay=0.0),
        checkpoint_every=200,
        keep_checkpoints=1,
    ).to_config_dict()
