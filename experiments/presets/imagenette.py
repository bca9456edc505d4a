"""Imagenette from TensorFlow Datasets: ten easy classes of ImageNet, 9,469 + 3,925 photographs of 320 pixels.

    python -m launch.prepare --source=tfds:imagenette/320px-v2
    python -m launch.pretrain --config=imagenette --workdir=runs/imagenette
    python -m launch.finetune --config=imagenette --config.pretrained=runs/imagenette \
        --workdir=runs/imagenette_finetuned

Photographs as large as ImageNet's, but a hundredth as many: for trying out what is meant for ImageNet.

Expected: not run here, and nothing is published for this method on these images.

Numbers: mask ratio, rates, decays and crops of pretraining, and augmentation, peak rate (8e-4), decays, crops and
stochastic depth of fine-tuning are those of the paper (ConvNeXt V2, appendix A) for atto. Batches and lengths are a
guess that suits the size of the data, and the average of the weights is left out because it needs longer runs.
Nothing was tuned.

Cost: not run here; see the README for how to time a step.
"""

from ml_collections import config_dict

from experiments.config import Config, DataConfig, FinetuneConfig, ModelConfig, PretrainConfig
from experiments.presets import FINETUNING_OF_ATTO


def get_config() -> config_dict.ConfigDict:
    """Returns the preset."""
    return Config(
        model=ModelConfig(variant="atto"),
        data=DataConfig(source="tfds:imagenette/320px-v2", image_size=224),
        pretrain=PretrainConfig(
            epochs=400,
            batch_size=256,
            crop_scale=(0.2, 1.0),
            base_learning_rate=1.5e-4,
            warmup_epochs=20,
            probe_every=20,
        ),
        finetune=FinetuneConfig(
            **FINETUNING_OF_ATTO,
            epochs=100,
            batch_size=128,
            crop_scale=(0.08, 1.0),
            base_learning_rate=1.6e-3,
            warmup_epochs=5,
        ),
    ).to_config_dict()
