"""STL-10 from TensorFlow Datasets: 100,000 colour pictures of 96x96 pixels without labels, 5,000 + 8,000 with.

    python -m launch.prepare --source=tfds:stl10
    python -m launch.pretrain --config=stl10 --workdir=runs/stl10
    python -m launch.finetune --config=stl10 --config.pretrained=runs/stl10 \
        --workdir=runs/stl10_finetuned

The case that self-supervision is for: pretraining sees only the unlabelled pictures, fine-tuning and the probes the
training pictures with labels, of which a tenth is held out for validation.

Expected: not run here. https://github.com/BSP36/fcmae publishes 63.9% top-1 from scratch and 83.1% after pretraining
with this encoder, and 60.5% and 77.8% with one of 1.07 M parameters; its settings differ (300 epochs of fine-tuning),
and its test images were the validation images too.

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
        # A stem of stride 2 makes patches of 16x16 pixels: a grid of 6x6.
        model=ModelConfig(variant="atto", stem_stride=2),
        data=DataConfig(source="tfds:stl10", pretrain_split="unlabelled", image_size=96),
        pretrain=PretrainConfig(
            epochs=200,
            batch_size=512,
            crop_scale=(0.2, 1.0),
            base_learning_rate=1.5e-4,
            warmup_epochs=10,
            probe_every=20,
        ),
        finetune=FinetuneConfig(
            **FINETUNING_OF_ATTO,
            epochs=200,
            batch_size=128,
            crop_scale=(0.08, 1.0),
            base_learning_rate=1.6e-3,
            warmup_epochs=10,
        ),
    ).to_config_dict()
