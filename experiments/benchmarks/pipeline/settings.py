"""What the benchmark of the input pipeline is asked to measure."""

import dataclasses

from experiments.config import (
    DataConfig,
    Section,
    kept_size,
    require,
    require_at_least,
    require_distinct,
    require_one_of,
)

NUM_CLASSES = 1000
CROP_SCALE = (0.2, 1.0)  # of the windows in pretraining
PILLOW = "pillow"
# Strengths as in fine-tuning of the paper's larger models; colour jitter as in many other recipes.
RANDAUGMENT = {"randaugment_magnitude": 9.0, "randaugment_noise": 0.5}
COLOR_JITTER = {"color_jitter": (0.4, 0.4, 0.4, 0.1)}
ERASING = {"erasing_probability": 0.25}
MIXING = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing": 0.1}


@dataclasses.dataclass(frozen=True)
class Stages:
    """What a contender does with a file.

    Args:
        source: `folder`, paths in random order, or `stream`, encoded images one after another.
        steps: `crop` (read, decode, random crop, resize), `training` (that and whatever is switched on, normalized) or
            `evaluation` (centre crop, normalized).
        flip: whether images are mirrored at random.
        changes: more fields of `Preprocessing`.
        mixing: fields of `Mixing`; without any, images are not mixed.
    """

    source: str = "folder"
    steps: str = "training"
    flip: bool = True
    changes: dict = dataclasses.field(default_factory=dict)
    mixing: dict = dataclasses.field(default_factory=dict)


STAGES = {
    "crop": Stages(steps="crop", flip=False),
    "crop_normalize": Stages(flip=False),
    "pretraining": Stages(),
    "pretraining_stream": Stages(source="stream"),
    "randaugment": Stages(changes=RANDAUGMENT),
    "color_jitter": Stages(changes=COLOR_JITTER),
    "erasing": Stages(changes=ERASING),
    "mixing": Stages(mixing=MIXING),
    "finetuning": Stages(changes={**RANDAUGMENT, **ERASING}, mixing=MIXING),
    "evaluation": Stages(steps="evaluation"),
}
# Whether they normalize.
PILLOW_CONTENDERS = {PILLOW: False, f"{PILLOW}_normalize": True}


@dataclasses.dataclass(frozen=True)
class InputSettings(Section):
    """Settings of `experiments.benchmarks.pipeline.measure`.

    Args:
        stages: names of `STAGES`, each a contender beside Pillow's.
        image_size: of the images that come out, in pixels: one number for squares, or `(height, width)`.
        batch_size: images of a batch.
        files: number of files; each is read several times.
        rounds: how often every contender has its turn.
        steps: batches of a turn.
        warmup: batches before each turn.
        cores: number of cores that each contender may use; 0 for all there are.
        seed: of files, order and augmentation.
    """

    stages: tuple[str, ...] = tuple(STAGES)
    image_size: int | tuple[int, ...] = 224
    batch_size: int = 64
    files: int = 128
    rounds: int = 5
    steps: int = 8
    warmup: int = 2
    cores: int = 0
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "image_size", kept_size(self.image_size, "image_size"))
        require_at_least("", self, 1, "batch_size", "files", "rounds", "steps", "warmup")
        require_at_least("", self, 0, "cores", "seed")
        require(self.stages, f"stages is empty: name one or more of {', '.join(STAGES)}.")
        for name in self.stages:
            require_one_of("stages", name, STAGES)
        require_distinct("stages", self.stages)
        require(
            self.files >= self.batch_size,
            f"files={self.files} make no batch of batch_size={self.batch_size}: ask for as many files at least.",
        )

    @property
    def images(self):
        """Number of images of a turn."""
        return self.steps * self.batch_size

    @property
    def data(self):
        """The `DataConfig`."""
        return DataConfig(image_size=self.image_size)
