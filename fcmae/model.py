"""FCMAE: the fully convolutional masked autoencoder."""

from typing import Any

import keras
from keras import ops

from convnext.backbone import ConvNeXt
from convnext.composite import CompositeModel, attributes
from convnext.types import Shape, Tensor
from fcmae.decoder import Decoder
from fcmae.encoder import EXECUTIONS, encode_dense, encode_sparse
from fcmae.layout import gather_patches, nan_unless_exact, split_patches
from fcmae.loss import reconstruction_loss, reconstruction_targets
from fcmae.masking import num_visible, patch_grid, patchify, sample_visible


@keras.saving.register_keras_serializable(package="fcmae")
class FCMAE(CompositeModel):
    """Fully convolutional masked autoencoder (https://arxiv.org/abs/2301.00808, section 3).

    Masks a share of the patches of each image, encodes the visible ones, and learns to predict the pixels of the masked
    ones. The loss is registered with `add_loss`, so `compile(optimizer)` and `fit(images)` train it.

    Example:

        >>> backbone = ConvNeXtV2.from_variant("atto", input_shape=(224, 224, 3), include_top=False)
        >>> model = FCMAE(backbone, mask_ratio=0.6)
        >>> model.compile(optimizer="adamw")
        >>> model.fit(images, epochs=1)                # images: (N, 224, 224, 3), normalized

    Args:
        backbone: a `ConvNeXtV2` or `ConvNeXtV1` without a head, with a known height and width.
        mask_ratio: share of masked patches, in (0, 1).
        decoder_dim: number of channels of the decoder.
        decoder_depth: number of blocks of the decoder.
        normalize_targets: whether the target patches are normalized by their own mean and variance.
        seed: seed of the generator that draws masks for calls without a mask.
        execution: `sparse` computes only the visible positions, `dense` all positions, with the same result.

    Raises:
        ValueError: if the patches do not tile the backbone's image size, or the ratio leaves no patch visible or none
            masked.
    """

    def __init__(
        self,
        backbone: ConvNeXt,
        mask_ratio: float = 0.6,
        decoder_dim: int = 512,
        decoder_depth: int = 1,
        normalize_targets: bool = True,
        seed: int = 0,
        execution: str = "sparse",
        **kwargs: Any,
    ) -> None:
        # Keras would round the pixels to the compute dtype, and the targets are normalized from them.
        super().__init__(autocast=False, **kwargs)
        if execution not in EXECUTIONS:
            raise ValueError(f"execution={execution!r} is not one of {', '.join(EXECUTIONS)}.")
        height, width, channels = backbone.image_shape
        if backbone.include_top or height is None or width is None:
            raise ValueError("FCMAE needs a backbone with include_top=False and a known height and width.")
        if max(backbone.dilations) > 1:
            raise ValueError("FCMAE needs a backbone without output_stride: dilated convolutions cross patches.")
        self.backbone = backbone
        self.mask_ratio = mask_ratio
        self.decoder_dim = decoder_dim
        self.decoder_depth = decoder_depth
        self.normalize_targets = normalize_targets
        self.seed = seed
        self.execution = execution
        self.patch_size = backbone.total_stride
        self.grid = patch_grid(height, width, self.patch_size)
        self.num_visible = num_visible(self.num_patches, mask_ratio)
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.decoder = Decoder(
            decoder_dim, decoder_depth, self.patch_size**2 * channels, dtype=self.dtype_policy, name="decoder"
        )
        self.build((None, height, width, channels))

    @property
    def num_patches(self) -> int:
        """Number of patches `L` of an image."""
        return self.grid[0] * self.grid[1]

    def build(self, input_shape: Shape) -> None:
        self.decoder.build((None, *self.grid, self.backbone.dims[-1]))
        self.input_spec = keras.layers.InputSpec(shape=(None, *self.backbone.image_shape))
        self.built = True

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], self.num_patches, self.decoder.patch_values

    def compute_output_spec(
        self, images: Tensor, visible: Tensor | None = None, training: bool | None = None, valid: Tensor | None = None
    ) -> keras.KerasTensor:
        batch, patches, values = self.compute_output_shape(images.shape)
        if training:
            patches -= self.num_visible
        return keras.KerasTensor((batch, patches, values), dtype=self.decoder.compute_dtype)

    def call(
        self, images: Tensor, visible: Tensor | None = None, training: bool | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Predicts patches from the visible ones, and registers the loss.

        Args:
            images: `(B, H, W, channels)`, normalized, of any dtype. The targets are computed from them in float32
                under every precision policy.
            visible: `(B, L)`, 1 for visible patches and 0 for masked ones, `num_visible` ones in each row; drawn at
                random where None.
            training: whether the model trains.
            valid: `(B, H, W, channels)` or `(B, H, W, 1)`, 1 for pixels with data and 0 for pixels without, whose
                values are ignored: the encoder sees 0 there, and they enter neither targets nor loss. None where all
                pixels have data.

        Returns:
            `(B, L, patch_size * patch_size * channels)`: the predicted values of each patch, in the units of the
            targets (see `normalize_targets`); in training only those of the masked patches, `(B, L - K, ...)`.
        """
        if visible is None:
            shape = (ops.shape(images)[0], self.num_patches)
            noise = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)  # float16 would have ties
            visible = sample_visible(noise, self.mask_ratio)
        images, valid = _only_valid(images, valid)
        _, hidden = split_patches(visible, self.num_visible)
        if training:
            prediction = of_hidden = self._predict(images, visible, hidden, training)
        else:
            prediction = self.predict_patches(images, visible)
            of_hidden = gather_patches(prediction, hidden)
        self.add_loss(ops.mean(self._losses_of(images, of_hidden, hidden, visible, valid)))
        return prediction

    def predict_patches(self, images: Tensor, visible: Tensor, training: bool | None = None) -> Tensor:
        """Returns the prediction of all patches, `(B, L, values)`, for given masks; registers no loss."""
        return self._predict(images, visible, None, training)

    def image_losses(
        self, images: Tensor, visible: Tensor, training: bool | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Returns the loss of each image for given masks, `(B,)` float32, averaged over its masked patches.

        Only masked patches are predicted. An image whose number of visible patches is not `num_visible` has the loss
        NaN. `valid` is as in `call`.
        """
        images, valid = _only_valid(images, valid)
        _, hidden = split_patches(visible, self.num_visible)
        return self._losses_of(images, self._predict(images, visible, hidden, training), hidden, visible, valid)

    def encode(self, images: Tensor, visible: Tensor, training: bool | None = None) -> Tensor:
        """Returns the encoder's features of the visible patches, `(B, rows, columns, C)`, zero at masked ones."""
        images = ops.cast(images, self.backbone.compute_dtype)
        visible = ops.cast(visible, "float32")
        if self.execution == "dense":
            return encode_dense(self.backbone, images, visible, training=training)
        return encode_sparse(self.backbone, images, visible, self.num_visible, training=training)

    def _predict(self, images: Tensor, visible: Tensor, chosen: Tensor | None, training: bool | None) -> Tensor:
        latent = self.encode(images, visible, training=training)
        return self.decoder(latent, visible, chosen, training=training)

    def _losses_of(
        self, images: Tensor, prediction: Tensor, hidden: Tensor, visible: Tensor, valid: Tensor | None
    ) -> Tensor:
        patches = gather_patches(patchify(images, self.patch_size), hidden)
        if valid is not None:
            valid = gather_patches(patchify(valid, self.patch_size), hidden)
        targets = reconstruction_targets(patches, self.normalize_targets, valid)
        losses = reconstruction_loss(prediction, targets, valid)
        return nan_unless_exact(losses, visible, self.num_visible)

    def get_config(self) -> dict[str, Any]:
        names = "mask_ratio", "decoder_dim", "decoder_depth", "normalize_targets", "seed", "execution"
        backbone = keras.saving.serialize_keras_object(self.backbone)
        return {**super().get_config(), "backbone": backbone, **attributes(self, *names)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        backbone = keras.saving.deserialize_keras_object(config["backbone"])
        return super().from_config({**config, "backbone": backbone})


def _only_valid(images: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Returns the images with 0 where there is no data, and the mask of valid pixels, `(B, H, W, channels)` float32."""
    if valid is None:
        return images, None
    valid = ops.broadcast_to(ops.cast(valid, "float32"), ops.shape(images))
    return ops.where(valid > 0, images, ops.zeros_like(images)), valid  # a product would propagate NaN
