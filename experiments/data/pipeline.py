"""From a split to batches.

The k-th example of epoch e, its augmentation and its mask are functions of (seed, e, k), and of nothing else, and so is
what the k-th batch is mixed by: a run that resumes at any step, or on another number of devices or of readers, sees the
same batches.

Only that is decoded which a batch shows. An example that cannot be decoded, and for tasks with labels one that has none
(-1), keeps its place with weight 0.

Each example keeps its place whatever other one is broken. TensorFlow can leave out elements of a data set that raise
errors, but nothing else: so a part of a batch is loaded as a small data set of its own, and what is missing at its end
is made up for by blanks, which the whole batch then moves to their places.
"""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from experiments.config import MAX_PIXELS
from experiments.data.augmentation import views
from experiments.data.augmentation.color_jitter import color_jitter
from experiments.data.augmentation.erasing import random_erasing
from experiments.data.augmentation.randaugment import randaugment
from experiments.data.reading import decode_and_crop
from experiments.errors import UserError


def share_of_batch(batch_size, reader, num_readers):
    """Returns the places of a global batch that belong to a reader.

    The places are dealt out from both ends of the batch to its middle: of 8 places the first of two readers gets 0, 1,
    6 and 7, the other 2 to 5. So a share of an even number of places has with each the opposite one, and what Mixup and
    CutMix mix, opposite places, lies in one share. A single reader gets all places.

    Args:
        batch_size: images of the global batch.
        reader: number of the reader, from 0.
        num_readers: how many there are.

    Returns:
        `(batch_size // num_readers,)` int64, ascending. The shares of all readers are the whole batch.

    Raises:
        UserError: if the batch does not divide by the readers.
    """
    if not 0 <= reader < num_readers:
        raise ValueError(f"Reader {reader} is none of {num_readers} readers.")
    if batch_size % num_readers:
        raise UserError(f"A batch of {batch_size} images does not divide among {num_readers} readers.")
    places = np.arange(batch_size, dtype=np.int64)
    from_both_ends = np.stack([places, places[::-1]], axis=1).reshape(-1)[:batch_size]
    size = batch_size // num_readers
    return np.sort(from_both_ends[reader * size : (reader + 1) * size])


def check_mixing(batch_size, num_readers):
    """Raises UserError if the readers' shares separate images that Mixup and CutMix mix."""
    if num_readers > 1 and batch_size // num_readers % 2:
        raise UserError(
            f"Mixup and CutMix mix pairs of images, and a batch of {batch_size} does not divide into pairs among "
            f"{num_readers} readers: use a multiple of {2 * num_readers}."
        )


def examples_of_batch(split, batch_size, seed, step):
    """Returns where the examples of a training batch are, in its order, without reading any of them.

    Args:
        split: the examples that are trained on.
        batch_size: images of a batch.
        seed: integer.
        step: number of the optimizer step that takes the batch, from 1.

    Returns:
        A list of `batch_size` dictionaries, see `MemorySplit.find`.
    """
    examples = endless_examples(split.numbered(), seed, batch_size, np.arange(batch_size), step - 1)
    contents = [content for _, content, _ in examples.take(batch_size).as_numpy_iterator()]
    return [split.find((content[-1] if isinstance(content, tuple) else content).decode()) for content in contents]


# A small data set takes time to set up, which its examples share; they are loaded one after another.
PART = 16
PARTS_AT_ONCE = min(64, max(4, os.cpu_count() or 1))


def load_batches(split, examples, load, finish, batch_size, drop_remainder=False):
    """Loads examples and puts them together in batches, in their order.

    Args:
        split: the `MemorySplit` or `StreamSplit` that the examples come from.
        examples: `tf.data.Dataset` of tuples of scalars.
        load: function of an example, which may raise errors; it returns a tuple of tensors of static shapes.
        finish: function of the result of `load`, which raises none; it returns a dictionary of tensors with `weights`,
            0 where all that it got is zeros.
        batch_size: examples of a batch.
        drop_remainder: whether a last batch of fewer examples is left out.

    Returns:
        A `tf.data.Dataset` of batches. What cannot be loaded is zeros for `finish`.
    """
    if not split.can_fail:
        finished = parallel_map(examples, lambda *example: finish(*load(*example)))
        return finished.batch(batch_size, drop_remainder)
    loaded = _load_or_blank(examples, load, batch_size)
    finished = parallel_map(loaded, lambda place, values: (place, finish(*values)))
    return finished.batch(batch_size, drop_remainder).map(_put_in_place)


def parallel_map(dataset, function):
    """Maps a function over a data set on all cores; the order stays."""
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _load_or_blank(examples, load, batch_size):
    """Returns pairs of a place in the batch and what `load` makes of the example there, part by part of the batches.

    In each part those that cannot be loaded come last, as zeros without a place, -1.
    """
    spec = examples.map(load).element_spec
    blank = (tf.constant(-1, tf.int64), tuple(tf.zeros(value.shape, value.dtype) for value in spec))

    def load_part(places, example):
        part = tf.data.Dataset.from_tensor_slices((places, example))
        loaded = part.map(lambda place, example: (place, load(*example))).ignore_errors()
        blanks = tf.data.Dataset.from_tensors(blank).repeat()
        return loaded.concatenate(blanks).take(tf.size(places, tf.int64))

    placed = examples.enumerate().map(lambda count, example: (count % batch_size, example))
    sizes = [min(PART, batch_size - start) for start in range(0, batch_size, PART)]  # a part lies in one batch
    parts = placed.batch(PART).rebatch(sizes)  # a whole batch of encoded images would take memory and time
    return parts.interleave(
        load_part,
        cycle_length=PARTS_AT_ONCE,
        block_length=PART,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _put_in_place(places, batch):
    """Moves the examples of a batch to their places, and blanks to those that are left."""

    def moved():
        found = tf.where(places >= 0)
        blank = tf.argmin(places)
        order = tf.tensor_scatter_nd_update(
            tf.fill(tf.shape(places), blank), tf.gather_nd(places, found)[:, tf.newaxis], found[:, 0]
        )
        return {name: tf.gather(values, order) for name, values in batch.items()}

    return tf.cond(tf.reduce_all(places >= 0), lambda: batch, moved)


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
