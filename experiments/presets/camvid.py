"""CamVid: street scenes of 480x360 pixels, a class for each pixel, 367 of them to learn from.

The folder has `images/{train,val,test}` and `masks/{train,val,test}`, with the numbers 0 to 11 in the masks, and beside
them `classes.txt`, a name a line: sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist.

    python -m launch.pretrain --config=camvid --config.data.source=folder:CAMVID --workdir=runs/camvid
    python -m launch.finetune --config=camvid --config.data.source=folder:CAMVID \
        --config.pretrained=runs/camvid --workdir=runs/camvid_segmented

Without `--config.pretrained` it starts from scratch. The number 11, unlabelled, does not count. `val` chooses the best
weights; `test` is read once, at the end.

Expected: not run to its end here. Rates and lengths are a guess; nothing was tuned.

Cost: not run here; see the README for how to time a step.
"""

from experiments.config import Config, DataConfig, FinetuneConfig, ModelConfig, PretrainConfig, SegmentationConfig


def get_config():
    """Returns the preset."""
    return Config(
        model=ModelConfig(variant="atto", decoder_dim=256),
        data=DataConfig(source="folder:camvid", ignore_label=(11,), image_size=224),
        pretrain=PretrainConfig(
            epochs=400,
            batch_size=64,
            crop_scale=(0.2, 1.0),
            base_learning_rate=1.5e-3,
            warmup_epochs=20,
        ),
        finetune=FinetuneConfig(
            task="segmentation",
            epochs=100,
            batch_size=16,
            base_learning_rate=1.6e-2,
            warmup_epochs=5,
            weight_decay=0.05,
            layer_decay=0.9,
            drop_path_rate=0.1,
            color_jitter=(0.4, 0.4, 0.4, 0.0),
            evaluations=20,
        ),
        segmentation=SegmentationConfig(decoder="upernet", decoder_dim=128),
    ).to_config_dict()
