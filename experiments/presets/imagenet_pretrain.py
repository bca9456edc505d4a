"""The paper's pretraining on ImageNet-1K, for every published size of ConvNeXt V2, here tiny.

    python -m launch.prepare --source=tfds:imagenet2012 --manual_dir=FOLDER_OF_THE_ARCHIVES
    python -m launch.pretrain --config=imagenet_pretrain:tiny --workdir=runs/imagenet_tiny

Sizes: atto, femto, pico, nano, tiny, base, large, huge. `imagenet_finetune.py` goes on from here.

ImageNet in a folder with `train` and `val`, `--config.data.source=folder:PATH --config.data.test_split=`: all of
`train` is trained on, and `val` is the validation set, on which the summary has the loss. From TensorFlow Datasets the
same 50,000 images are the test (`test_split="validation"`), which pretraining does not look at.

A batch of 4,096 images needs many devices, or parts: `--config.pretrain.accumulation_steps=16` works through the
share of a device in 16 of them, with the same result. All 1,281,167 training images are used; to see the loss on
images that are not trained on, where there is no such `val`, hold some out: `--config.data.validation_share=0.01`.
Probes are off, because fitting and scoring on so many images takes long: `--config.pretrain.probe_every=100`
with validation images turns them on.

Expected: what fine-tuning reaches, see `imagenet_finetune.py`. Not run here.

Numbers: the paper (https://arxiv.org/abs/2301.00808), appendix A, table on pretraining: batch 4,096, base rate 1.5e-4
for 256 images, 1,600 epochs (800 in its ablations), 40 of warmup, decay 0.05, betas 0.9 and 0.95, crops of 0.2 to 1
of the area, mirroring, mask ratio 0.6, a decoder of one block of 512 channels.

Cost: not run here; see the README for how to time a step.
"""

from ml_collections import config_dict

from experiments.config import Config, ModelConfig, PretrainConfig
from experiments.presets import check_size, imagenet_data


def get_config(size: str = "") -> config_dict.ConfigDict:
    """Returns the preset for a published size, such as `tiny`."""
    check_size(size, "imagenet_pretrain")
    return Config(
        model=ModelConfig(variant=size, decoder_dim=512, decoder_depth=1),
        data=imagenet_data(),
        pretrain=PretrainConfig(
            epochs=1600,
            batch_size=4096,
            mask_ratio=0.6,
            crop_scale=(0.2, 1.0),
            base_learning_rate=1.5e-4,
            warmup_epochs=40,
            weight_decay=0.05,
            beta_1=0.9,
            beta_2=0.95,
            pictures=20,
        ),
    ).to_config_dict()
