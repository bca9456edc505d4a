"""From the bytes of an image to the input of the model: crop, augmentation, normalization."""

import dataclasses

import tensorflow as tf

from experiments.config import AUTO, height_and_width, require
from experiments.data.augmentation import views
from experiments.data.augmentation.color_jitter import color_jitter
from experiments.data.augmentation.erasing import random_erasing
from experiments.data.augmentation.randaugment import randaugment
from experiments.data.reading import decode_and_crop
from experiments.data.values import Reading

# Independent streams of randomness of one example.
WINDOW, FLIP, MASK, COLORS, ERASING = range(5)

PADDED_UP_TO = 64  # side in pixels up to which images are moved rather than cut and resized


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input of the model.

    Training crops, flips, changes tones and geometry, normalizes and erases, in this order; evaluation crops and
    normalizes. Where `reading` knows of pixels without data, they are NaN in what comes out.

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
        reading: which values of a file are read; by default those of any program, with the number of channels.
    """

    image_size: int | tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    evaluation_crop: float = 1.0
    crop_scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    whole_view: bool = False
    crop: str = "resized"
    randaugment_magnitude: float = 0.0
    randaugment_noise: float = 0.0
    color_jitter: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    erasing_probability: float = 0.0
    reading: Reading | None = None

    def __post_init__(self):
        if self.reading is None:
            object.__setattr__(self, "reading", Reading(self.channels))

    @classmethod
    def of(cls, data, training=None):
        """Returns the preprocessing of a `DataConfig`, for evaluation alone or with that of a `TrainingConfig`."""
        require(AUTO not in (data.mean, data.std), "data.mean=auto is for a training run, which computes it.")
        fixed = cls(
            image_size=data.image_size,
            channels=data.channels,
            mean=data.mean,
            std=data.std,
            evaluation_crop=data.evaluation_crop,
            flip=data.flip,
            whole_view=data.whole_view,
            reading=Reading.of(data),
        )
        if training is None:
            return fixed
        small = max(data.size) <= PADDED_UP_TO
        crop = {"auto": "padded" if small else "resized"}.get(training.crop, training.crop)
        return dataclasses.replace(fixed, crop=crop, crop_scale=training.crop_scale, **training.augmentation)

    @property
    def size(self):
        """`(height, width)` of the images."""
        return height_and_width(self.image_size)

    def for_training(self, encoded, seed):
        """Bytes to `(height, width, channels)` float32, by a stateless seed."""
        return self.augment(self.random_view(encoded, seed), seed)

    def random_view(self, encoded, seed):
        """The first half of `for_training`: the random crop, resized; values in [0, 255]."""
        seed = tf.random.fold_in(seed, WINDOW)
        if self.crop == "padded":
            return views.random_shift(self._fixed_view(encoded), [side // 8 for side in self.size], seed)
        return self._view(encoded, lambda size: views.random_window(size, self.crop_scale, seed, self._aspect))

    def augment(self, image, seed):
        """The second half of `for_training`: everything after the crop."""
        flip_seed, colors_seed, erasing_seed = (tf.random.fold_in(seed, stream) for stream in (FLIP, COLORS, ERASING))
        if self.flip:
            image = views.random_flip(image, flip_seed)
        if self.reading.has_gaps and (self.randaugment_magnitude or any(self.color_jitter)):
            image = tf.where(tf.math.is_nan(image), 255.0 * tf.constant(self.mean), image)
        if self.randaugment_magnitude:
            strength = (self.randaugment_magnitude, self.randaugment_noise)
            image = randaugment(_to_whole_values(image), *strength, self.mean, colors_seed)
        if any(self.color_jitter):
            image = color_jitter(_to_whole_values(image), self.color_jitter, colors_seed)
        image = views.normalize(image, self.mean, self.std)
        return random_erasing(image, self.erasing_probability, erasing_seed) if self.erasing_probability else image

    def for_evaluation(self, encoded):
        """Centre window, or the whole image, and resize: bytes to `(height, width, channels)` float32."""
        return views.normalize(self._fixed_view(encoded), self.mean, self.std)

    @property
    def _aspect(self):
        return self.size[1] / self.size[0]

    def _fixed_view(self, encoded):
        if self.whole_view:
            return self._view(encoded, views.whole_window)
        return self._view(encoded, lambda size: views.centre_window(size, self.evaluation_crop, self._aspect))

    def _view(self, encoded, choose_window):
        """Decodes a window and resizes it: values in [0, 255], float32."""
        resize = lambda image: views.resize(image, self.size)  # noqa: E731
        finish = (lambda image: views.with_gaps(resize, image)) if self.reading.has_gaps else resize
        image = decode_and_crop(encoded, choose_window, self.reading, finish)
        return tf.ensure_shape(image, (*self.size, self.channels))


def _to_whole_values(image):
    """Rounds values in [0, 255] to uint8."""
    return tf.cast(tf.round(image), tf.uint8)
