"""Your own folder of images with masks: a class for each pixel, by ConvNeXt V2 atto and UPerNet of 128 channels.

    python -m launch.pretrain --config=own_masks --config.data.source=folder:PATH --workdir=runs/own
    python -m launch.finetune --config=own_masks --config.data.source=folder:PATH \
        --config.pretrained=runs/own --workdir=runs/own_segmented
    python -m launch.predict --model=runs/own_segmented --data=PHOTOGRAPHS --output=predicted

The folder has `images/` and `masks/`, see docs/segmentation.md; pretraining takes only the images, and may take
another folder. Images are seen as they are, in windows of 224x224 pixels: reduce photographs of many megapixels first.
`--config.pretrain.batch_size` is at most the number of images.

Numbers: pretraining as in `own_images`; of fine-tuning, stochastic depth is the paper's for atto and layer-wise decay
that of its segmentation, the others are a guess. Nothing was tuned.

Expected result and cost depend on the images; see the README for how to time a step.
"""

import dataclasses

from ml_collections import config_dict

from experiments.config import Config, FinetuneConfig, SegmentationConfig
from experiments.presets import own_images


def get_config() -> config_dict.ConfigDict:
    """Returns the preset."""
    return dataclasses.replace(
        Config.from_dict(own_images.get_config().to_dict()),
        finetune=FinetuneConfig(
            task="segmentation",
            epochs=100,
            batch_size=8,
            base_learning_rate=1.6e-2,
            warmup_epochs=5,
            layer_decay=0.9,
            drop_path_rate=0.1,
            color_jitter=(0.4, 0.4, 0.4, 0.0),
        ),
        segmentation=SegmentationConfig(decoder_dim=128),
    ).to_config_dict()
