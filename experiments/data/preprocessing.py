"""From the bytes of an image, or from images in memory, to the input of the model: crop, augmentation, normalization.

Files are decoded and cropped one by one; images in memory are cropped in whole batches, and everything after the crop
works on batches. Both ways give the same images, up to the rounding of sums where they are resized.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Self

import tensorflow as tf

from experiments.config import AUTO, DataConfig, TrainingConfig, height_and_width, require
from experiments.data.augmentation import draws, views
from experiments.data.augmentation.color_jitter import color_jitter
from experiments.data.augmentation.erasing import random_erasing
from experiments.data.augmentation.randaugment import randaugment
from experiments.data.cache import DecodedImages
from experiments.data.decoding import decode_and_crop
from experiments.data.values import Reading

# Independent random streams of one example.
STREAMS = 5
WINDOW, FLIP, MASK, COLORS, ERASING = range(STREAMS)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of the model.

    Training crops, flips, changes tones and geometry, normalizes and erases, in this order; evaluation crops and
    normalizes. Pixels without data, according to `reading`, are NaN in the result.

    Args:
        image_size: in pixels: one number for squares, or `(height, width)`.
        channels: number of channels.
        mean: of each channel, in [0, 1].
        std: of each channel.
        evaluation_crop: size of the centre crop, see `views.centre_window`.
        crop_scale: smallest and largest area of the random crop.
        flip: whether training mirrors images at random.
        whole_view: whether evaluation sees the whole image, squeezed into the image size, instead of the centre crop.
        crop: of training: `resized` takes a random window, `padded` moves the view of evaluation at random.
        randaugment_magnitude: see `randaugment`; 0 for none.
        randaugment_noise: see `randaugment`.
        color_jitter: strengths of brightness, contrast, saturation and hue, see `color_jitter`.
        erasing_probability: see `random_erasing`.
        reading: how the values of a file are read; by default as other programs do, with the number of channels.
    """

    image_size: int | tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    evaluation_crop: float = 1.0
    crop_scale: tuple[float, ...] = (1.0, 1.0)
    flip: bool = False
    whole_view: bool = False
    crop: str = "resized"
    randaugment_magnitude: float = 0.0
    randaugment_noise: float = 0.0
    color_jitter: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    erasing_probability: float = 0.0
    reading: Reading = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.reading is None:
            object.__setattr__(self, "reading", Reading(self.channels))
        if self.reading.channels != self.channels:
            raise ValueError(f"{self.reading} is for other than {self.channels} channels.")

    @classmethod
    def of(cls, data: DataConfig, training: TrainingConfig | None = None) -> Self:
        """Returns the preprocessing of a `DataConfig`, for evaluation alone or with that of a `TrainingConfig`."""
        require(AUTO not in (data.mean, data.std), "data.mean=auto is for a training run, which computes it.")
        names = ("image_size", "channels", "mean", "std", "evaluation_crop", "flip", "whole_view")
        fixed = cls(reading=Reading.of(data), **{name: getattr(data, name) for name in names})
        if training is None:
            return fixed
        crop = training.crop_of(data.size)
        return dataclasses.replace(fixed, crop=crop, crop_scale=training.crop_scale, **training.augmentation)

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)` of the images."""
        return height_and_width(self.image_size)

    def for_training(self, encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Bytes to `(height, width, channels)` float32, by a stateless seed."""
        return self.augment(self.random_view(encoded, seed)[tf.newaxis], seed[tf.newaxis])[0]

    def random_view(self, encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The first half of `for_training`: the random crop, resized; values in [0, 255]."""
        seeds = draws.streams(seed[tf.newaxis], STREAMS)[WINDOW]
        if self.crop == "padded":
            return self._shift(self._fixed_view(encoded)[tf.newaxis], seeds)[0]
        return self._view(encoded, lambda sizes: self._random_window(sizes, seeds), self.size)

    def random_views(self, decoded: DecodedImages, seeds: tf.Tensor) -> tf.Tensor:
        """Does `random_view` for a batch of `DecodedImages`, with `seeds` `(B, 2)` int64."""
        seeds = draws.streams(seeds, STREAMS)[WINDOW]
        if self.crop == "padded":
            return self._shift(self._fixed_views(decoded), seeds)
        return self._resize_windows(decoded.images, self._random_window(_sizes(decoded), seeds))

    def augment(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """The second half of `for_training`, everything after the crop, of a batch."""
        seeds = draws.streams(seeds, STREAMS)
        if self.flip:
            images = views.random_flip(images, seeds[FLIP])
        if self.reading.has_gaps and (self.randaugment_magnitude or any(self.color_jitter)):
            images = tf.where(tf.math.is_nan(images), 255.0 * tf.constant(self.mean), images)
        if self.randaugment_magnitude:
            strength = (self.randaugment_magnitude, self.randaugment_noise)
            images = randaugment(_to_whole_values(images), *strength, self.mean, seeds[COLORS])
        if any(self.color_jitter):
            images = color_jitter(_to_whole_values(images), self.color_jitter, seeds[COLORS])
        images = views.normalize(images, self.mean, self.std)
        if self.erasing_probability:
            images = random_erasing(images, self.erasing_probability, seeds[ERASING])
        return images

    def mask_noise(self, num_patches: int, seeds: tf.Tensor) -> tf.Tensor:
        """Returns `(B, num_patches)`, uniform in [0, 1), which decide the visible patches of a batch."""
        return draws.uniform(draws.streams(seeds, STREAMS)[MASK], (num_patches,))

    def for_evaluation(self, encoded: tf.Tensor) -> tf.Tensor:
        """Centre window, or the whole image, and resize: bytes to `(height, width, channels)` float32."""
        return views.normalize(self._fixed_view(encoded), self.mean, self.std)

    def for_evaluation_of(self, decoded: DecodedImages) -> tf.Tensor:
        """Does `for_evaluation` for a batch of `DecodedImages`."""
        return views.normalize(self._fixed_views(decoded), self.mean, self.std)

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Bytes to an image to keep in memory, `(H, W, channels)` float32, values in [0, 255]."""
        return _decoder(self.reading)(encoded)

    def resize(self, image: tf.Tensor) -> tf.Tensor:
        """Resizes `(H, W, channels)` to the image size: values in [0, 255], float32."""
        return self._with_gaps(lambda image: views.resize(image, self.size))(image)

    @property
    def _aspect(self) -> float:
        return self.size[1] / self.size[0]

    def _random_window(self, sizes: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        return views.random_window(sizes, self.crop_scale, seeds, self._aspect)

    def _fixed_window(self, sizes: tf.Tensor) -> tf.Tensor:
        if self.whole_view:
            return views.whole_window(sizes)
        return views.centre_window(sizes, self.evaluation_crop, self._aspect)

    def _shift(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        return views.random_shift(images, [side // 8 for side in self.size], seeds)

    def _fixed_views(self, decoded: DecodedImages) -> tf.Tensor:
        images, whole = decoded.images, self.whole_view or self.evaluation_crop == 1.0
        if decoded.sizes is None and images.shape[1:3] == self.size and whole:
            return tf.cast(images, tf.float32)  # there is nothing to cut off or to resize
        return self._resize_windows(images, self._fixed_window(_sizes(decoded)))

    def _fixed_view(self, encoded: tf.Tensor) -> tf.Tensor:
        return self._view(encoded, self._fixed_window)

    def _view(
        self,
        encoded: tf.Tensor,
        choose_windows: Callable[[tf.Tensor], tf.Tensor],
        target: tuple[int, int] | None = None,
    ) -> tf.Tensor:
        """Decodes a window and resizes it: values in [0, 255], float32."""
        choose_window = lambda size: choose_windows(size[tf.newaxis])[0]  # noqa: E731
        image = decode_and_crop(encoded, choose_window, self.reading, self.resize, target)
        return tf.ensure_shape(image, (*self.size, self.channels))

    def _resize_windows(self, images: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        """Resizes windows of a batch: values in [0, 255], float32."""
        return self._with_gaps(lambda images: views.resize_windows(images, windows, self.size))(images)

    def _with_gaps(self, resize: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
        return (lambda images: views.with_gaps(resize, images)) if self.reading.has_gaps else resize


@functools.cache
def _decoder(reading: Reading) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function that decodes whole images, traced once: tracing takes longer than decoding small splits."""
    bytes_of_file = tf.TensorSpec((), tf.string)
    decode = functools.partial(decode_and_crop, choose_window=views.whole_window, reading=reading)
    return tf.function(decode, input_signature=[bytes_of_file], autograph=False)


def _sizes(decoded: DecodedImages) -> tf.Tensor:
    """Returns the height and width of each of a batch of `DecodedImages`, `(B, 2)`."""
    if decoded.sizes is None:
        return tf.tile(tf.constant([decoded.images.shape[1:3].as_list()]), [tf.shape(decoded.images)[0], 1])
    return decoded.sizes


def _to_whole_values(images: tf.Tensor) -> tf.Tensor:
    """Rounds values in [0, 255] to uint8."""
    return tf.cast(tf.round(images), tf.uint8)
