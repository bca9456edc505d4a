"""CamVid: street scenes of 480x360 pixels, a class for each pixel, 367 of them to learn from.

The folder has `images/{train,val,test}` and `masks/{train,val,test}`, with the numbers 0 to 11 in the masks, and beside
them `classes.txt`, one per line: sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist.

    python -m launch.pretrain --config=camvid --config.data.source=folder:CAMVID --workdir=runs/camvid
    python -m launch.finetune --config=camvid --config.data.source=folder:CAMVID \
        --config.pretrained=runs/camvid --workdir=runs/camvid_segmented

Without `--config.pretrained` it starts from scratch. The number 11, unlabelled, is ignored. `val` chooses the best
weights; `test` is read once, at the end.

Expected: 27.8% mean IoU on the test images (mean of three seeds), 22.4% from scratch; see docs/segmentation.md.

Cost on two threads of an AMD EPYC with AVX-512: half an hour of pretraining, 6 minutes of fine-tuning.

Numbers: the rate of fine-tuning was chosen on the validation images; it is the same for the pretrained encoder and from
scratch. Sizes and lengths are what two cores can train; the other numbers are guesses.
"""

from ml_collections import config_dict

from experiments.config import Config, DataConfig, FinetuneConfig, ModelConfig, PretrainConfig, SegmentationConfig


def get_config() -> config_dict.ConfigDict:
    """Returns the preset."""
    return Config(
        model=ModelConfig(depths=(2, 2, 4), dims=(40, 80, 160), decoder_dim=256),
        data=DataConfig(source="folder:camvid", ignore_label=(11,), image_size=192),
        pretrain=PretrainConfig(
            epochs=300,
            batch_size=64,
            crop_scale=(0.1, 1.0),
            base_learning_rate=3e-3,
            warmup_epochs=15,
        ),
        finetune=FinetuneConfig(
            task="segmentation",
            epochs=20,
            batch_size=16,
            base_learning_rate=8e-3,
            warmup_epochs=3,
            weight_decay=0.05,
            drop_path_rate=0.1,
            color_jitter=(0.4, 0.4, 0.4, 0.0),
        ),
        segmentation=SegmentationConfig(decoder="fpn", decoder_dim=64),
    ).to_config_dict()
