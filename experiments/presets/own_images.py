"""Your own folder of images: ConvNeXt V2 atto at 224x224 pixels.

    python -m launch.pretrain --config=own_images --config.data.source=folder:PATH \
        --workdir=runs/own
    python -m launch.finetune --config=own_images --config.data.source=folder:PATH \
        --config.pretrained=runs/own --workdir=runs/own_finetuned

Fine-tuning needs a sub-folder for each class. With fewer than 100,000 images, train for several hundred epochs.
Small folders need a smaller `--config.pretrain.batch_size`, at most the number of images. With labels,
`--config.pretrain.probe_every=20` shows during the run what the encoder learns.

Numbers: mask ratio, crops, base rate and decays of pretraining, and stochastic depth of fine-tuning, are those of the
paper (ConvNeXt V2, appendix A) for atto. The rest is a guess. Nothing was tuned.

Expected result and cost depend on the images; see the README for how to time a step.
"""

from ml_collections import config_dict

from experiments.config import Config, DataConfig, FinetuneConfig, ModelConfig, PretrainConfig


def get_config() -> config_dict.ConfigDict:
    """Returns the preset."""
    return Config(
        model=ModelConfig(variant="atto"),
        data=DataConfig(source="folder:images", image_size=224),
        pretrain=PretrainConfig(
            epochs=200,
            batch_size=256,
            crop_scale=(0.2, 1.0),
            base_learning_rate=1.5e-4,
            warmup_epochs=10,
        ),
        finetune=FinetuneConfig(
            epochs=50,
            batch_size=64,
            crop_scale=(0.2, 1.0),
            base_learning_rate=1e-3,
            warmup_epochs=5,
            drop_path_rate=0.1,
            label_smoothing=0.1,
        ),
    ).to_config_dict()
