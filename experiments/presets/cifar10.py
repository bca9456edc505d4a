"""CIFAR-10 from TensorFlow Datasets: 50,000 + 10,000 colour pictures of 32x32 pixels in ten classes.

    python -m launch.prepare --source=tfds:cifar10
    python -m launch.pretrain --config=cifar10 --workdir=runs/cifar10
    python -m launch.finetune --config=cifar10 --config.pretrained=runs/cifar10 \
        --workdir=runs/cifar10_finetuned

Expected: see docs/study.md for linear probes after 100 epochs, and for fine-tuning with 250 to 4,000 labels and, for 8
epochs, with all. The 100 epochs of fine-tuning here were not run, and nothing is published for this method on these
images.

Numbers: the encoder, the mask ratio and the rate of pretraining were chosen by probes of short runs on validation
images; 0.75 and 0.6 were equally good, and 0.75 is faster. Crops of pretraining are resized: the black borders of
padded ones are predicted without anything being learned. Decays of pretraining, and augmentation, peak rate (8e-4),
decays and stochastic depth of fine-tuning are those of the paper (ConvNeXt V2, appendix A) for atto, but for its
crops, which are padded as is usual for CIFAR. Batches and lengths are a guess that suits the size of the data, and
the average of the weights is left out because it needs longer runs.

Cost: an epoch of pretraining takes 65 to 85 seconds on two threads of an AMD EPYC with AVX-512.
"""

from ml_collections import config_dict

from experiments.config import Config, DataConfig, FinetuneConfig, ModelConfig, PretrainConfig
from experiments.presets import FINETUNING_OF_ATTO


def get_config() -> config_dict.ConfigDict:
    """Returns the preset."""
    return Config(
        # Patches of 4x4 pixels, a grid of 8x8, and 1.2 million parameters in two stages.
        model=ModelConfig(depths=(1, 2), dims=(64, 256), stem_stride=2, decoder_dim=128),
        data=DataConfig(
            source="tfds:cifar10",
            image_size=32,
            evaluation_crop=1.0,
            mean=(0.491, 0.482, 0.447),
            std=(0.245, 0.243, 0.260),
        ),
        pretrain=PretrainConfig(
            epochs=100,
            batch_size=128,
            mask_ratio=0.75,
            crop="resized",
            crop_scale=(0.25, 1.0),
            base_learning_rate=6e-3,
            probe_every=10,
        ),
        finetune=FinetuneConfig(
            **FINETUNING_OF_ATTO,
            epochs=100,
            batch_size=256,
            crop="padded",
            base_learning_rate=8e-4,
            warmup_epochs=5,
        ),
    ).to_config_dict()
