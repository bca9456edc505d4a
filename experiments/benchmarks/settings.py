"""What the benchmark of training steps is asked to measure."""

import dataclasses
import math

from convnext.convnext_v2 import ConvNeXtV2
from experiments.config import (
    Config,
    DataConfig,
    ModelConfig,
    PretrainConfig,
    Section,
    height_and_width,
    kept_size,
    require,
    require_at_least,
    require_distinct,
    require_one_of,
)
from experiments.errors import UserError
from fcmae.encoder import EXECUTIONS
from fcmae.masking import num_visible, patch_grid

VARIANTS = tuple(ConvNeXtV2.MODEL_VARIANTS)
PYTORCH = "pytorch"  # the contender that is no Keras model
CONTENDERS = (*EXECUTIONS, PYTORCH)
BACKENDS = ("tensorflow", "jax", "torch")
# What makes the step fast on TensorFlow and a CPU, see `contenders.without`.
MEASURES = ("onednn", "depthwise_gradient", "patch_products", "compiled_chains", "fused_adamw", "hidden_only")
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # Keras's dtype policy of each


@dataclasses.dataclass(frozen=True)
class StepSettings(Section):
    """Settings of `experiments.benchmarks.step`.

    Args:
        variant: published size of the encoder; `depths` and `dims` take its place where given.
        depths: number of blocks of each stage.
        dims: number of channels of each stage.
        decoder_dim: channels of the decoder.
        image_size: of the images in pixels: one number for squares, or `(height, width)`.
        batch_size: images of a step.
        mask_ratio: shares of hidden patches, one table each; 0 stands for a single hidden patch.
        execution: the contenders, timed in turn: `sparse`, `dense` and `pytorch`.
        precision: `float32` or `bfloat16`.
        backend: of Keras: `tensorflow`, `jax` or `torch`.
        rounds: how often every contender has its turn.
        steps: training steps of a turn.
        warmup: training steps before the first round, the ones that compile among them.
        seed: of weights, images and masks.
        without: measures that make the step fast; for each there is one contender more, the first of `execution`
            without it, on TensorFlow and a CPU.
    """

    variant: str = "atto"
    depths: tuple[int, ...] = ()
    dims: tuple[int, ...] = ()
    decoder_dim: int = 512
    image_size: int | tuple[int, ...] = 224
    batch_size: int = 8
    mask_ratio: tuple[float, ...] = (0.6,)
    execution: tuple[str, ...] = EXECUTIONS
    precision: str = "float32"
    backend: str = "tensorflow"
    rounds: int = 10
    steps: int = 3
    warmup: int = 3
    seed: int = 0
    without: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "image_size", kept_size(self.image_size, "image_size"))
        require_one_of("variant", self.variant, VARIANTS)
        require_one_of("precision", self.precision, PRECISIONS)
        require_one_of("backend", self.backend, BACKENDS)
        require(self.execution, f"execution is empty: name one or more of {', '.join(CONTENDERS)}.")
        for name in self.execution:
            require_one_of("execution", name, CONTENDERS)
        for name in ("execution", "without", "mask_ratio"):
            require_distinct(name, getattr(self, name))
        for name in self.without:
            require_one_of("without", name, MEASURES)
        require(
            not self.without or (self.backend == "tensorflow" and self.execution[0] != PYTORCH),
            "without takes measures back on TensorFlow: use backend=tensorflow, and sparse or dense as the first "
            "execution.",
        )
        require(
            len(self.depths) == len(self.dims), f"depths={self.depths} and dims={self.dims} need one number a stage."
        )
        require(min(self.depths + self.dims, default=1) > 0, "depths and dims are numbers above 0.")
        require_at_least("", self, 1, "decoder_dim", "batch_size", "rounds", "steps")
        # The peak of memory is that of at least three steps: the first allocates the optimizer's moments.
        require_at_least("", self, 3, "warmup")
        require_at_least("", self, 0, "seed")
        require(self.mask_ratio, "mask_ratio is empty: name one or more shares of hidden patches.")
        self._check_patches()

    def _check_patches(self):
        try:
            patch_grid(*height_and_width(self.image_size), self.patch_size)
        except ValueError as error:
            raise UserError(f"image_size={self.image_size}: {error}") from error
        for ratio in self.mask_ratio:
            try:
                self.num_visible(ratio)
            except ValueError as error:
                raise UserError(str(error)) from error

    @property
    def contenders(self):
        """The contenders: `{name: (execution, measure taken back or an empty text)}`."""
        named = {execution: (execution, "") for execution in self.execution}
        return named | {f"without {measure}": (self.execution[0], measure) for measure in self.without}

    @property
    def stages(self):
        """`(depths, dims)` of the encoder."""
        return ModelConfig(variant=self.variant, depths=self.depths, dims=self.dims).stages

    @property
    def patch_size(self):
        """Side of a patch in pixels."""
        return ModelConfig.stem_stride * 2 ** (len(self.stages[0]) - 1)

    @property
    def num_patches(self):
        """Number of patches of an image."""
        return math.prod(patch_grid(*height_and_width(self.image_size), self.patch_size))

    def legal_ratio(self, ratio):
        """Returns the ratio that is timed for one that was asked for.

        Without a hidden patch there is no loss, so there is no training step at ratio 0: the nearest is the one with
        a single hidden patch.
        """
        return 1 / self.num_patches if ratio == 0 else ratio

    def num_visible(self, ratio):
        """Returns how many patches of an image stay visible at a ratio that was asked for.

        Raises:
            ValueError: if the ratio is none that can be trained with.
        """
        return num_visible(self.num_patches, self.legal_ratio(ratio))

    def config(self, ratio, execution="sparse"):
        """Returns the `Config` of pretraining at a mask ratio, by an execution of Keras's contenders."""
        return Config(
            seed=self.seed,
            model=ModelConfig(variant=self.variant, depths=self.depths, dims=self.dims, decoder_dim=self.decoder_dim),
            data=DataConfig(image_size=self.image_size),
            pretrain=PretrainConfig(
                batch_size=self.batch_size, mask_ratio=self.legal_ratio(ratio), execution=execution
            ),
        )

    @property
    def policy(self):
        """Keras's dtype policy."""
        return PRECISIONS[self.precision]
