"""From a split to batches.

The k-th example of epoch e, its augmentation and its mask are functions of (seed, e, k), and of nothing else, and so is
what the k-th batch is mixed by: a run that resumes at any step, or on another number of devices or of readers, sees the
same batches.

Only that is decoded which a batch shows. An example that cannot be decoded, and for tasks with labels one that has none
(-1), keeps its place with weight 0.
"""

import dataclasses

import tensorflow as tf

from experiments.config.data import MAX_PIXELS
from experiments.data.augmentation import views
from experiments.data.augmentation.color_jitter import color_jitter
from experiments.data.augmentation.erasing import random_erasing
from experiments.data.augmentation.randaugment import randaugment
from experiments.data.loading import load_batches, parallel_map
from experiments.data.readers import check_mixing, share_of_batch
from experiments.data.reading import decode_and_crop

# Independent streams of randomness of one example.
WINDOW, FLIP, MASK, COLORS, ERASING = range(5)

PADDED_UP_TO = 64  # side in pixels up to which images are moved rather than cut and resized


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How an image becomes the input of the model.

    Training crops, flips, changes tones and geometry, normalizes and erases, in this order; evaluation crops and
    normalizes.

    Args:
        image_size: side in pixels.
        channels: 1 or 3.
        mean: of each channel, in [0, 1].
        std: of each channel.
        evaluation_crop: share of the shorter side that the centre crop keeps.
        crop_scale: smallest and largest area of the random crop.
        flip: whether training mirrors images at random.
        whole_view: whether evaluation sees the whole image, squeezed into a square, instead of the centre crop.
        crop: of training: `resized` takes a random window, `padded` moves the view of evaluation at random.
        randaugment_magnitude: see `randaugment`; 0 for none.
        randaugment_noise: see `randaugment`.
        color_jitter: strengths of brightness, contrast, saturation and hue, see `color_jitter`.
        erasing_probability: see `random_erasing`.
        max_pixels: largest number of pixels of an image that is decoded.
    """

    image_size: int
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
    max_pixels: int = MAX_PIXELS

    @classmethod
    def of(cls, data, training=None):
        """Returns the preparation that a `DataConfig` and a `TrainingConfig` describe, in fields of the same names."""
        values = {}
        for section in (data, training):
            values |= {f.name: getattr(section, f.name) for f in dataclasses.fields(cls) if hasattr(section, f.name)}
        if values.get("crop") == "auto":
            values["crop"] = "padded" if data.image_size <= PADDED_UP_TO else "resized"
        return cls(**values)

    def for_training(self, encoded, seed):
        """Bytes to `(image_size, image_size, channels)` float32, by a stateless seed."""
        return self.augment(self.random_view(encoded, seed), seed)

    def random_view(self, encoded, seed):
        """The first half of `for_training`: the random crop, resized; values in [0, 255]."""
        seed = tf.random.fold_in(seed, WINDOW)
        if self.crop == "padded":
            return views.random_shift(self._fixed_view(encoded), self.image_size // 8, seed)
        return self._view(encoded, lambda size: views.random_window(size, self.crop_scale, seed))

    def augment(self, image, seed):
        """The second half of `for_training`: everything after the crop."""
        flip_seed, colors_seed, erasing_seed = (tf.random.fold_in(seed, stream) for stream in (FLIP, COLORS, ERASING))
        if self.flip:
            image = views.random_flip(image, flip_seed)
        if self.randaugment_magnitude:
            strength = (self.randaugment_magnitude, self.randaugment_noise)
            image = randaugment(_to_whole_values(image), *strength, self.mean, colors_seed)
        if any(self.color_jitter):
            image = color_jitter(_to_whole_values(image), self.color_jitter, colors_seed)
        image = views.normalize(image, self.mean, self.std)
        return random_erasing(image, self.erasing_probability, erasing_seed) if self.erasing_probability else image

    def for_evaluation(self, encoded):
        """Centre window, or the whole image, and resize: bytes to `(image_size, image_size, channels)` float32."""
        return views.normalize(self._fixed_view(encoded), self.mean, self.std)

    def _fixed_view(self, encoded):
        if self.whole_view:
            return self._view(encoded, views.whole_window)
        return self._view(encoded, lambda size: views.centre_window(size, self.evaluation_crop))

    def _view(self, encoded, choose_window):
        """Decodes a window and resizes it: values in [0, 255], float32."""
        image = decode_and_crop(encoded, choose_window, self.channels, self.max_pixels)
        return tf.ensure_shape(views.resize(image, self.image_size), (self.image_size, self.image_size, self.channels))


def training_batches(
    split, preparation, batch_size, seed, start_step=0, num_patches=0, mixing=None, reader=0, num_readers=1
):
    """Returns the endless stream of training batches from a given step on, or one reader's share of it.

    Each epoch has `num_examples // batch_size` batches. Of every batch a reader reads, decodes and mixes the images at
    the places of `share_of_batch` alone; put at these places, the shares of all readers are the batches of a single
    reader, bit for bit. Under `tf.distribute` a reader is an input pipeline: `reader=context.input_pipeline_id`,
    `num_readers=context.num_input_pipelines`.

    Args:
        split: the examples.
        preparation: a `Preparation`.
        batch_size: images of a batch, over all readers.
        seed: integer.
        start_step: number of batches that are already done with.
        num_patches: number of patches of an image, for which mask noise is drawn; 0 draws none.
        mixing: a `Mixing`, for tasks with labels.
        reader: number of this reader, from 0.
        num_readers: how many readers share each batch.

    Returns:
        A `tf.data.Dataset` of dictionaries, with `B` images of `batch_size // num_readers`: `images`
        `(B, H, W, channels)` float32; `labels` `(B,)` int64; `weights` `(B,)` float32, 0 for a file that cannot be
        decoded, and with `mixing` for an example without label; with `num_patches` `noise` `(B, L)` float32, uniform
        draws to choose the visible patches by; with `mixing` `targets` `(B, num_classes)` float32.

    Raises:
        UserError: if the readers cannot share the batches.
    """
    places = share_of_batch(batch_size, reader, num_readers)
    if mixing:
        check_mixing(batch_size, num_readers)
    batches_per_epoch = split.num_examples // batch_size

    def load(seed, content, label):
        return seed, preparation.random_view(split.read(content), seed), label, _weight(label, labelled=bool(mixing))

    def augment(seed, image, label, weight):
        image = tf.cond(weight > 0.0, lambda: preparation.augment(image, seed), lambda: image)
        example = {"images": image, "labels": label, "weights": weight}
        if num_patches:
            example["noise"] = tf.random.stateless_uniform([num_patches], tf.random.fold_in(seed, MASK))
        return example

    def mix(step, batch):
        return mixing(batch, batch_seed(seed, step // batches_per_epoch, step % batches_per_epoch))

    examples = endless_examples(split, seed, batch_size, places, start_step)
    batches = load_batches(split, examples, load, augment, len(places), drop_remainder=True)
    return _finish(parallel_map(batches.enumerate(start_step), mix) if mixing else batches)


def evaluation_batches(split, preparation, batch_size, labelled=False, num_patches=0, seed=0):
    """Returns the examples of a split once, in order.

    The last batch is filled up with examples of weight 0, so that all batches have the same size.

    Args:
        split: the examples.
        preparation: a `Preparation`.
        batch_size: images of a batch.
        labelled: whether examples without a label have weight 0.
        num_patches: number of patches of an image, for which mask noise is drawn; 0 draws none.
        seed: integer. The noise of the k-th example is a function of (seed, k) alone, whatever the batch size.

    Returns:
        A `tf.data.Dataset` of dictionaries with `images`, `labels`, `weights` and, with `num_patches`, `noise`, as in
        `training_batches`.
    """

    def load(position, example):
        content, label = example
        return position, preparation.for_evaluation(split.read(content)), label, _weight(label, labelled)

    def name(position, image, label, weight):
        example = {"images": image, "labels": label, "weights": weight}
        if num_patches:
            noise_seed = _fold_in(tf.constant([seed, 3], tf.int64), position)
            example["noise"] = tf.random.stateless_uniform([num_patches], noise_seed)
        return example

    batches = load_batches(split, split.in_order().enumerate(), load, name, batch_size)
    return _finish(batches.map(lambda batch: _fill_up(batch, batch_size)))


def example_seed(seed, epoch, position):
    """Returns the stateless seed, `(2,)` int64, of the `position`-th example of an epoch."""
    return _fold_in(tf.constant([seed, 1], tf.int64), epoch, position)


def batch_seed(seed, epoch, position):
    """Returns the stateless seed, `(2,)` int64, of the `position`-th batch of an epoch."""
    return _fold_in(tf.constant([seed, 2], tf.int64), epoch, position)


def _fold_in(seed, *numbers):
    for number in numbers:
        seed = tf.random.fold_in(seed, tf.cast(number, tf.int64))  # of another type it would be another seed
    return seed


def endless_examples(split, seed, batch_size, places, start_step):
    """Returns `(seed, content, label)` of the examples at some places of every batch, from a step on, without end."""
    batches_per_epoch = split.num_examples // batch_size
    first_epoch, first_batch = divmod(start_step, batches_per_epoch)

    def epoch_examples(epoch):
        tf.random.set_seed(1)  # of this function's graph: `shuffle` would take in the seed of the process
        first = tf.where(epoch == first_epoch, tf.constant(first_batch, tf.int64), tf.constant(0, tf.int64))
        batches = tf.range(first, tf.constant(batches_per_epoch, tf.int64))
        positions = tf.reshape(batches[:, tf.newaxis] * batch_size + places, [-1])
        examples = split.shuffled(seed, epoch, positions)
        return tf.data.Dataset.zip(tf.data.Dataset.from_tensor_slices(positions), examples).map(
            lambda position, example: (example_seed(seed, epoch, position), *example)
        )

    return tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch_examples)


def _weight(label, labelled):
    """Returns the weight of an example that can be decoded: 0 where it lacks the label that is needed."""
    return tf.cast(label >= 0, tf.float32) if labelled else tf.constant(1.0)


def _to_whole_values(image):
    """Rounds values in [0, 255] to uint8."""
    return tf.cast(tf.round(image), tf.uint8)


def _fill_up(batch, batch_size):
    missing = batch_size - tf.shape(batch["weights"])[0]
    return {
        name: tf.ensure_shape(
            tf.pad(value, [[0, missing]] + [[0, 0]] * (value.shape.rank - 1)), (batch_size, *value.shape[1:])
        )
        for name, value in batch.items()
    }


def _finish(batches):
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options).prefetch(tf.data.AUTOTUNE)
