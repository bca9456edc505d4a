"""The sections `pretrain`, `finetune` and `segmentation` of the configuration."""

import dataclasses
import typing
from collections.abc import Sequence

from convnext.segmentation import DECODERS
from experiments.config.section import Section, require
from experiments.optim.param_groups import GROUPS
from fcmae.encoder import EXECUTIONS

CROPS = ("auto", "resized", "padded")
PADDED_UP_TO = 64  # side in pixels up to which images are shifted rather than cropped and resized
MASKINGS = ("every_layer", "after_stem")


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Section):
    """The fields that pretraining and fine-tuning share.

    Args:
        epochs: length of the run.
        steps: length of the run in steps, which replaces `epochs` if above 0.
        batch_size: images of one optimizer step, over all devices and accumulation steps.
        accumulation_steps: parts into which a device splits its share of a batch, to save memory.
        crop: random crop of training: `resized` resizes a random window, with `crop_scale`; `padded` shifts the view of
            evaluation by up to an eighth of its side at random and pads with black; `auto` is `padded` for images of up
            to 64 pixels, such as CIFAR's, and `resized` for larger ones.
        crop_scale: smallest and largest area of the random crop, as a share of the image.
        base_learning_rate: peak rate for a batch of 256; the peak rate is proportional to the batch size.
        min_learning_rate: rate at the end of the cosine.
        warmup_epochs: length of the linear rise to the peak rate; may be a fraction.
        weight_decay: decoupled decay of AdamW.
        beta_1: decay of AdamW's first moment.
        beta_2: decay of AdamW's second moment.
        clip_norm: global norm to which larger gradients are clipped; 0 does not clip.
        evaluations: number of evaluations on the validation images during a run, evenly spaced, at most one per epoch,
            the last at the end; 0 for only the one at the end.
    """

    epochs: int = 100
    steps: int = 0
    batch_size: int = 256
    accumulation_steps: int = 1
    crop: str = "auto"
    crop_scale: tuple[float, ...] = (0.2, 1.0)
    base_learning_rate: float = 1.5e-4
    min_learning_rate: float = 0.0
    warmup_epochs: float = 5.0
    weight_decay: float = 0.05
    beta_1: float = 0.9
    beta_2: float = 0.999
    clip_norm: float = 0.0
    evaluations: int = 10

    section: typing.ClassVar[str] = "training"
    augmentation: typing.ClassVar[dict] = {}  # arguments of `Preprocessing` besides cropping and flipping

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_at_least(1, "epochs", "batch_size", "accumulation_steps")
        self.require_at_least(0, "steps", "min_learning_rate", "warmup_epochs", "weight_decay", "clip_norm")
        self.require_at_least(0, "evaluations")
        require(self.base_learning_rate > 0, f"{self.section}.base_learning_rate must be above 0.")
        require(0 <= self.beta_1 < 1 and 0 <= self.beta_2 < 1, f"{self.section}.beta_1 and beta_2 must be in [0, 1).")
        self.require_one_of("crop", CROPS)
        scale = self.crop_scale
        require(
            len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1,
            f"{self.section}.crop_scale must be (smallest, largest) with 0 < smallest <= largest <= 1, got {scale}.",
        )
        require(
            self.batch_size % self.accumulation_steps == 0,
            f"{self.section}.batch_size={self.batch_size} is not divisible by "
            f"{self.section}.accumulation_steps={self.accumulation_steps}.",
        )

    def crop_of(self, size: Sequence[int]) -> str:
        """Returns the random crop, `resized` or `padded`, of images of a height and width."""
        small = max(size) <= PADDED_UP_TO
        return {"auto": "padded" if small else "resized"}.get(self.crop, self.crop)


@dataclasses.dataclass(frozen=True)
class PretrainConfig(TrainingConfig):
    """Pretraining; the arguments of `TrainingConfig`, and:

    Args:
        mask_ratio: share of masked patches, in (0, 1).
        masking: where the encoder masks patches: in `every_layer`, as FCMAE does, or only `after_stem`, with dense
            convolutions from there on: an ablation of the paper, see `fcmae.StemMaskedFCMAE`.
        execution: `sparse` computes only the visible positions, `dense` all positions, with the same result.
        normalize_targets: whether target patches are normalized by their own mean and variance.
        pictures: number of pictures of reconstructions during a run, evenly spaced, at most one per epoch, the last at
            the end.
        probe_every: epochs between two evaluations of the frozen encoder by k-NN and a linear probe; there is another
            at the end. The scores of a random encoder are logged once. Needs labels, which pretraining itself does not
            use. 0 for no probes.
        probe_images: largest number of training images that the probes learn from, drawn with the seed and balanced
            over the classes, and of validation images that they are scored on.
    """

    beta_2: float = 0.95
    mask_ratio: float = 0.6
    masking: str = "every_layer"
    execution: str = "sparse"
    normalize_targets: bool = True
    pictures: int = 5
    probe_every: int = 0
    probe_images: int = 10000

    section: typing.ClassVar[str] = "pretrain"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("masking", MASKINGS)
        self.require_one_of("execution", EXECUTIONS)
        self.require_at_least(0, "pictures", "probe_every")
        self.require_at_least(2, "probe_images")


CLASS_WEIGHTS = ("none", "balanced")
TASKS = ("classification", "segmentation")
# Fields of fine-tuning that segmentation does not use, and that must not be set for it.
FOR_CLASSIFICATION = (
    *("label_smoothing", "randaugment_magnitude", "erasing_probability", "mixup_alpha", "cutmix_alpha"),
    *("dropout_rate", "multi_label"),
)


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(TrainingConfig):
    """Fine-tuning; the arguments of `TrainingConfig`, and:

    Only cropping and flipping are on by default. The paper's augmentation for its larger models: a RandAugment
    magnitude of 9, an erasing probability of 0.25, Mixup with 0.8, CutMix with 1.0, label smoothing of 0.1; for its
    smallest models no Mixup or CutMix, and label smoothing of 0.2.

    Args:
        task: `classification`, or `segmentation`: a class for each pixel, see `SegmentationConfig`.
        labels: which labelled images are used: `all`, a number of them (`100`), a share (`1%`), or
            `10 per class`; drawn with the seed and balanced over the classes, except for images of several classes.
        drop_path_rate: stochastic depth rate of the last block.
        dropout_rate: dropout rate of the pooled features.
        label_smoothing: share of the target that is spread over all classes.
        randaugment_magnitude: mean strength of RandAugment's two operations, in [0, 10]; 0 for none.
        randaugment_noise: standard deviation of that strength.
        color_jitter: strengths of brightness, contrast, saturation and hue; a factor is drawn from 1 - strength to 1 +
            strength; the hue is rotated by up to its strength, as a fraction of the circle. Cannot be combined with
            RandAugment, which has such operations.
        erasing_probability: probability that a random rectangle of an image becomes noise.
        mixup_alpha: parameter of the Beta distribution by which Mixup mixes two images; 0 for no Mixup.
        cutmix_alpha: parameter of the Beta distribution of the area that CutMix pastes from one image into another; 0
            for no CutMix.
        mix_probability: probability that a batch is mixed, by Mixup or CutMix.
        switch_probability: probability that a mixed batch uses CutMix, if both are on.
        layer_decay: ratio of a layer's learning rate to that of the layer above it, in (0, 1]; 1 for one rate for all.
        layer_decay_groups: what counts as a layer: `single`, one block; `group`, three consecutive blocks; see
            `LayerDecay`.
        head_init_scale: factor of the initial weights of the logits. It does not apply to loaded weights: when a run
            resumes, or from a pretrained classifier with the same number of classes. The authors' code always
            initializes the weights of the logits anew.
        ema_decay: decay of an exponential moving average of the trainable weights; 0 for none. It starts from the
            initial weights of the run and is updated from the first step on, without bias correction or warmup, as in
            the authors' code; so it needs many more steps than 1 / (1 - ema_decay).
        frozen_encoder: whether the encoder is frozen, in inference mode, and only the weights of the logits are
            trained: a linear probe. The normalization before the logits is frozen too, whereas MAE's linear probe has a
            batch normalization without affine parameters there.
        report_test: whether the summary has the figures on the test images. Set it to False when comparing settings, so
            that no choice depends on these figures; `launch.evaluate` computes them for the chosen run.
        class_weights: `none`, or `balanced`: each class has the same weight in the loss, however many images (in
            segmentation: pixels) it has; in multi-label fine-tuning, for each class the images with it and those
            without it have the same weight.
        multi_label: whether each class has its own sigmoid, for images with several classes or none; always on if
            labels name several classes, see `data.labels_file`.
    """

    task: str = "classification"
    labels: str = "all"
    drop_path_rate: float = 0.0
    dropout_rate: float = 0.0
    label_smoothing: float = 0.0
    randaugment_magnitude: float = 0.0
    randaugment_noise: float = 0.5
    color_jitter: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    erasing_probability: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5
    layer_decay: float = 1.0
    layer_decay_groups: str = "single"
    head_init_scale: float = 0.001
    ema_decay: float = 0.0
    frozen_encoder: bool = False
    report_test: bool = True
    class_weights: str = "none"
    multi_label: bool = False

    section: typing.ClassVar[str] = "finetune"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_in("[0, 1)", "drop_path_rate", "dropout_rate", "label_smoothing", "ema_decay")
        self.require_in("[0, 1]", "erasing_probability", "mix_probability", "switch_probability")
        self.require_at_least(0, "randaugment_noise", "mixup_alpha", "cutmix_alpha", "head_init_scale")
        self.require_in("[0, 10]", "randaugment_magnitude")
        self._check_color_jitter()
        self._check_training()

    @property
    def augmentation(self) -> dict[str, typing.Any]:  # type: ignore[override]
        """Arguments of `Preprocessing` beside cropping and flipping."""
        names = ("randaugment_magnitude", "randaugment_noise", "color_jitter", "erasing_probability")
        return {name: getattr(self, name) for name in names}

    def _check_color_jitter(self) -> None:
        strengths = self.color_jitter
        require(
            len(strengths) == 4 and min(strengths) >= 0 and strengths[-1] <= 0.5,
            "finetune.color_jitter must be (brightness, contrast, saturation, hue), each at least 0 and the hue at "
            f"most 0.5, got {strengths}.",
        )
        require(
            not (any(strengths) and self.randaugment_magnitude),
            "finetune.color_jitter and finetune.randaugment_magnitude cannot be combined: set one of them to 0.",
        )

    def _check_training(self) -> None:
        require(0 < self.layer_decay <= 1, f"finetune.layer_decay must be in (0, 1], got {self.layer_decay:g}.")
        self.require_one_of("task", TASKS)
        self.require_one_of("layer_decay_groups", GROUPS)
        self.require_one_of("class_weights", CLASS_WEIGHTS)
        if self.task == "segmentation":
            for field in dataclasses.fields(self):
                unused = field.name in FOR_CLASSIFICATION and getattr(self, field.name) != field.default
                require(not unused, f"finetune.{field.name} is for finetune.task=classification: leave it out.")
        if not self.frozen_encoder:
            return
        for name, off in (("drop_path_rate", 0.0), ("layer_decay", 1.0)):
            require(
                getattr(self, name) == off,
                f"finetune.frozen_encoder leaves nothing for finetune.{name}={getattr(self, name):g} to act on: add "
                f"--config.finetune.{name}={off:g}.",
            )


@dataclasses.dataclass(frozen=True)
class SegmentationConfig(Section):
    """Segmentation, with `finetune.task=segmentation`; the section `finetune` holds the fields of training.

    A training image is a window of `data.image_size`, out of an image that is enlarged or reduced at random; pixels
    of the window outside of the image are ignored. `finetune.crop` and `crop_scale` are not used.

    Args:
        decoder: `upernet`, as in the ConvNeXt papers, or `fpn`, which is lighter.
        decoder_dim: channels of the decoder; the papers' UPerNet has 512.
        dropout_rate: of the channels before the logits.
        auxiliary_weight: loss weight of a small auxiliary head on the second-to-last stage; 0 for none.
        dice_weight: weight of the Dice loss, which is added to the cross-entropy; 0 for none.
        scale: smallest and largest factor by which training changes the size of an image, drawn log-uniformly.
        window: largest height and width that evaluation processes at a time, in pixels; larger images are cut into
            overlapping windows.
        window_overlap: least fraction of a window that the next one overlaps, in [0, 1).
        pictures: number of pictures of images, masks and predictions during a run, evenly spaced, at most one per
            epoch.
    """

    decoder: str = "upernet"
    decoder_dim: int = 512
    dropout_rate: float = 0.1
    auxiliary_weight: float = 0.4
    dice_weight: float = 0.0
    scale: tuple[float, ...] = (0.5, 2.0)
    window: int = 1024
    window_overlap: float = 0.25
    pictures: int = 5

    section: typing.ClassVar[str] = "segmentation"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_one_of("decoder", DECODERS)
        self.require_at_least(1, "decoder_dim", "window")
        self.require_at_least(0, "auxiliary_weight", "dice_weight", "pictures")
        self.require_in("[0, 1)", "dropout_rate", "window_overlap")
        scale = self.scale
        require(
            len(scale) == 2 and 0 < scale[0] <= scale[1],
            f"segmentation.scale must be (smallest, largest) with 0 < smallest <= largest, got {scale}.",
        )
