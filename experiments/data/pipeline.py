"""Makes the batches of a split.

The k-th example of epoch e, its augmentation and its mask are functions of (seed, e, k) alone, and the draws of Mixup
and CutMix of (seed, e, batch). So a run that resumes at any step, on any number of devices or shards, sees the same
batches.

Only images used in the batch are decoded. An example that cannot be decoded, or lacks a label (-1) where the task needs
one, keeps its place with weight 0.

An unreadable example does not shift the others. TensorFlow can only drop elements that raise errors. So each part of a
batch is loaded as a small data set, the dropped elements are replaced by zeros at its end, and then all are moved to
their places.

AutoGraph is off: no function here has control flow to convert, and searching for it takes most of the setup time of a
data set.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from experiments.data.augmentation import draws
from experiments.data.augmentation.mixing import Mixing
from experiments.data.cache import decoded_images
from experiments.data.preprocessing import Preprocessing
from experiments.data.source import Split
from experiments.errors import UserError
from experiments.types import Batch


def shard_of_batch(batch_size: int, shard: int, num_shards: int) -> np.ndarray:
    """Returns the places of a global batch that belong to a shard.

    Places are assigned from both ends of the batch to its middle: of 8 places the first of two shards gets 0, 1, 6 and
    7, the other 2 to 5. So a shard with an even number of places contains the opposite of each of its places, and the
    pairs that Mixup and CutMix mix are in one shard. A single shard gets all places.

    Args:
        batch_size: images of the global batch.
        shard: number of the shard, from 0.
        num_shards: how many there are.

    Returns:
        `(batch_size // num_shards,)` int64, ascending. All shards together are the whole batch.

    Raises:
        UserError: if the batch size is not divisible by the number of shards.
    """
    if not 0 <= shard < num_shards:
        raise ValueError(f"Shard {shard} is not one of {num_shards} shards.")
    if batch_size % num_shards:
        raise UserError(f"A batch of {batch_size} images cannot be divided equally into {num_shards} shards.")
    places = np.arange(batch_size, dtype=np.int64)
    from_both_ends = np.stack([places, places[::-1]], axis=1).reshape(-1)[:batch_size]
    size = batch_size // num_shards
    return np.sort(from_both_ends[shard * size : (shard + 1) * size])


def check_mixing(batch_size: int, num_shards: int) -> None:
    """Raises UserError if the shards would separate the pairs that Mixup and CutMix mix."""
    if num_shards > 1 and batch_size // num_shards % 2:
        raise UserError(
            f"Mixup and CutMix mix pairs of images, and a batch of {batch_size} does not divide into pairs in "
            f"{num_shards} shards: use a multiple of {2 * num_shards}."
        )


def examples_of_batch(split: Split, batch_size: int, seed: int, step: int) -> list[dict[str, Any]]:
    """Returns the positions of the examples of a training batch, in its order, without reading them.

    Args:
        split: the examples that are trained on.
        batch_size: images of a batch.
        seed: integer.
        step: number of the optimizer step that takes the batch, from 1.

    Returns:
        A list of `batch_size` dictionaries, see `Split.find`.
    """
    (batch,) = _endless_numbers(split, seed, batch_size, np.arange(batch_size), step - 1).take(1)
    _, numbers = batch
    return [split.find(number) for number in numbers.numpy().tolist()]


# Larger parts share the setup time of a small data set, but examples of a part are loaded one after another.
PART = 16
PARTS_AT_ONCE = min(64, max(4, os.cpu_count() or 1))


def load_batches(
    split: Split,
    examples: tf.data.Dataset,
    load: Callable[..., tuple[tf.Tensor, ...]],
    finish: Callable[..., Batch],
    batch_size: int,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Loads examples and batches them, in their order.

    Args:
        split: the `Split` that the examples come from.
        examples: `tf.data.Dataset` of tuples of scalars.
        load: function of an example that may raise errors; it returns a tuple of tensors of static shapes.
        finish: function of the result of `load` that raises no errors; it returns a dictionary of tensors with
            `weights`, 0 if its input is all zeros.
        batch_size: examples of a batch.
        drop_remainder: whether a last batch of fewer examples is left out.

    Returns:
        A `tf.data.Dataset` of batches. For an example that cannot be loaded, `finish` gets zeros.
    """
    if not split.can_fail:
        finished = parallel_map(examples, lambda *example: finish(*load(*example)))
        return finished.batch(batch_size, drop_remainder)
    return _load_or_blank(examples, load, finish, batch_size).batch(batch_size, drop_remainder).map(_put_in_place)


def parallel_map(dataset: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    """Maps a function over a data set on all cores, in order."""
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _load_or_blank(
    examples: tf.data.Dataset, load: Callable[..., tuple[tf.Tensor, ...]], finish: Callable[..., Batch], batch_size: int
) -> tf.data.Dataset:
    """Returns `(place in the batch, finished)`, part by part; at place -1 those of zeros, for what cannot be loaded."""

    def load_part(places: tf.Tensor, example: tuple[Any, ...]) -> tf.data.Dataset:
        part = tf.data.Dataset.from_tensor_slices((places, example))
        loaded = part.map(lambda place, example: (place, load(*example))).ignore_errors()
        blank = tuple(tf.zeros(value.shape, value.dtype) for value in loaded.element_spec[1])
        blanks = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), blank)).repeat()
        loaded = loaded.concatenate(blanks).take(tf.size(places, tf.int64))
        return loaded.map(lambda place, values: (place, finish(*values)))  # while the image is in the processor's cache

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


def _put_in_place(places: tf.Tensor, batch: Batch) -> Batch:
    """Moves the examples of a batch to their places, and blanks to those that are left."""

    def moved() -> Batch:
        found = tf.where(places >= 0)
        blank = tf.argmin(places)
        order = tf.tensor_scatter_nd_update(
            tf.fill(tf.shape(places), blank), tf.gather_nd(places, found)[:, tf.newaxis], found[:, 0]
        )
        return {name: tf.gather(values, order) for name, values in batch.items()}

    return tf.cond(tf.reduce_all(places >= 0), lambda: batch, moved)


@tf.autograph.experimental.do_not_convert
def training_batches(
    split: Split,
    preprocessing: Preprocessing,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_patches: int = 0,
    mixing: Mixing | None = None,
    shard: int = 0,
    num_shards: int = 1,
) -> tf.data.Dataset:
    """Returns the endless stream of training batches from a given step on, or one shard of it.

    An epoch has `num_examples // batch_size` batches. A shard reads, decodes and mixes only the images of a batch at
    the places of `shard_of_batch`. Assembled by these places, all shards equal the batches of a single one, bit for
    bit. Under `tf.distribute` a shard is an input pipeline: `shard=context.input_pipeline_id`,
    `num_shards=context.num_input_pipelines`.

    Args:
        split: the examples.
        preprocessing: a `Preprocessing`.
        batch_size: images of a batch, over all shards.
        seed: integer.
        start_step: number of batches to skip.
        num_patches: number of patches of an image, for which mask noise is drawn; 0 draws none.
        mixing: a `Mixing`, for tasks with labels.
        shard: number of this shard, from 0.
        num_shards: how many shards each batch is divided into.

    Returns:
        A `tf.data.Dataset` of dictionaries, with `B` images of `batch_size // num_shards`: `images`
        `(B, H, W, channels)` float32; `labels` `(B,)` int64; `weights` `(B,)` float32, 0 for a file that cannot be
        decoded, and with `mixing` for an example without label; with `num_patches` `noise` `(B, L)` float32, uniform
        draws that decide the visible patches, and if pixels may be without data `valid`, of the shape of the images, 1
        where there is data and 0 elsewhere, where the images are 0, the mean; with `mixing` `targets` `(B,
        num_classes)` float32.

    Raises:
        UserError: if the batches do not divide into the shards.
    """
    places = shard_of_batch(batch_size, shard, num_shards)
    if mixing:
        check_mixing(batch_size, num_shards)
    batches_per_epoch = split.num_examples // batch_size

    def load(seed: tf.Tensor, content: Any, label: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return seed, preprocessing.random_view(split.read(content), seed), label, _weight(label, labelled=bool(mixing))

    def finish(seed: tf.Tensor, image: tf.Tensor, label: tf.Tensor, weight: tf.Tensor) -> Batch:
        augment = lambda: preprocessing.augment(image[tf.newaxis], seed[tf.newaxis])[0]  # noqa: E731
        image = tf.cond(weight > 0.0, augment, lambda: tf.zeros_like(image))
        noise = preprocessing.mask_noise(num_patches, seed[tf.newaxis])[0] if num_patches else None
        return _batch(image, label, weight, noise)

    def batch_in_memory(seeds: tf.Tensor, numbers: tf.Tensor) -> Batch:
        assert memory is not None
        taken = memory.take(numbers)
        weights = _weight(taken.labels, bool(mixing), taken.readable)
        images = preprocessing.augment(preprocessing.random_views(taken, seeds), seeds)
        noise = preprocessing.mask_noise(num_patches, seeds) if num_patches else None
        return _batch(_readable(images, weights), taken.labels, weights, noise)

    def mix(step: tf.Tensor, batch: Batch) -> Batch:
        assert mixing is not None
        return mixing(batch, batch_seed(seed, step // batches_per_epoch, step % batches_per_epoch))

    if memory := decoded_images(split, preprocessing):
        numbers = _endless_numbers(split, seed, batch_size, places, start_step)
        batches = parallel_map(numbers, batch_in_memory)
    else:
        examples = endless_examples(split, seed, batch_size, places, start_step)
        batches = load_batches(split, examples, load, finish, len(places), drop_remainder=True)
    batches = fill_gaps(batches, preprocessing, num_patches)
    return finish_batches(parallel_map(batches.enumerate(start_step), mix) if mixing else batches)


@tf.autograph.experimental.do_not_convert
def evaluation_batches(
    split: Split,
    preprocessing: Preprocessing,
    batch_size: int,
    labelled: bool = False,
    num_patches: int = 0,
    seed: int = 0,
) -> tf.data.Dataset:
    """Returns the examples of a split once, in order.

    The last batch is filled up with examples of weight 0, so that all batches have the same size.

    Args:
        split: the examples.
        preprocessing: a `Preprocessing`.
        batch_size: images of a batch.
        labelled: whether examples without a label have weight 0.
        num_patches: number of patches of an image, for which mask noise is drawn; 0 draws none.
        seed: integer. The noise of the k-th example is a function of (seed, k) alone, whatever the batch size.

    Returns:
        A `tf.data.Dataset` of dictionaries with `images`, `labels`, `weights` and, with `num_patches`, `noise`, as in
        `training_batches`.
    """

    def load(position: tf.Tensor, example: tuple[Any, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        content, label = example
        return position, preprocessing.for_evaluation(split.read(content)), label, _weight(label, labelled)

    def finish(position: tf.Tensor, image: tf.Tensor, label: tf.Tensor, weight: tf.Tensor) -> Batch:
        return _batch(image, label, weight, mask_noise(position[tf.newaxis])[0] if num_patches else None)

    def mask_noise(positions: tf.Tensor) -> tf.Tensor:
        return draws.uniform(draws.fold_in(tf.constant([seed, 3], tf.int64), positions), (num_patches,))

    def batch_in_memory(numbers: tf.Tensor) -> Batch:
        assert memory is not None
        taken = memory.take(numbers)
        weights = _weight(taken.labels, labelled, taken.readable)
        images = _readable(preprocessing.for_evaluation_of(taken), tf.cast(taken.readable, tf.float32))
        return _batch(images, taken.labels, weights, mask_noise(numbers) if num_patches else None)

    if memory := decoded_images(split, preprocessing):
        numbers = tf.data.Dataset.range(len(memory.labels)).batch(batch_size)
        batches = parallel_map(numbers, batch_in_memory)
    else:
        batches = load_batches(split, split.in_order().enumerate(), load, finish, batch_size)
    batches = fill_gaps(batches, preprocessing, num_patches)
    return finish_batches(batches.map(lambda batch: _fill_up(batch, batch_size)))


def example_seed(seed: int, epoch: int | tf.Tensor, position: int | tf.Tensor) -> tf.Tensor:
    """Returns the stateless seed, `(2,)` int64, of the `position`-th example of an epoch."""
    return _fold_in(tf.constant([seed, 1], tf.int64), epoch, position)


def _example_seeds(seed: int, epoch: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Returns `example_seed` for each of some positions, `(P, 2)`."""
    return draws.fold_in(_fold_in(tf.constant([seed, 1], tf.int64), epoch), positions)


def batch_seed(seed: int, epoch: int | tf.Tensor, position: int | tf.Tensor) -> tf.Tensor:
    """Returns the stateless seed, `(2,)` int64, of the `position`-th batch of an epoch."""
    return _fold_in(tf.constant([seed, 2], tf.int64), epoch, position)


def _fold_in(seed: tf.Tensor, *numbers: int | tf.Tensor) -> tf.Tensor:
    for number in numbers:
        seed = tf.random.fold_in(seed, tf.cast(number, tf.int64))  # another type would give another seed
    return seed


def endless_examples(split: Split, seed: int, batch_size: int, places: np.ndarray, start_step: int) -> tf.data.Dataset:
    """Returns `(seed, content, label)` of the examples at some places of every batch, from a step on, without end."""

    def examples_of(epoch: tf.Tensor, positions: tf.Tensor) -> tf.data.Dataset:
        seeds = tf.data.Dataset.from_tensor_slices(_example_seeds(seed, epoch, positions))
        examples = split.shuffled(seed, epoch, positions)
        return tf.data.Dataset.zip(seeds, examples).map(lambda seed, example: (seed, *example))

    return _endless(split, batch_size, places, start_step, examples_of)


def _endless_numbers(split: Split, seed: int, batch_size: int, places: np.ndarray, start_step: int) -> tf.data.Dataset:
    """Returns `(seeds, numbers)` of the same examples, `(P, 2)` and `(P,)` int64, batch by batch; nothing is read."""

    def numbers_of(epoch: tf.Tensor, positions: tf.Tensor) -> tf.data.Dataset:
        numbers = tf.data.Dataset.zip(
            tf.data.Dataset.from_tensor_slices(positions), split.order(seed, epoch, positions)
        )
        return numbers.batch(len(places), drop_remainder=True).map(
            lambda positions, numbers: (_example_seeds(seed, epoch, positions), numbers)
        )

    return _endless(split, batch_size, places, start_step, numbers_of)


def _endless(
    split: Split,
    batch_size: int,
    places: np.ndarray,
    start_step: int,
    examples_of: Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset],
) -> tf.data.Dataset:
    """Returns the results of `examples_of` for the positions of each epoch, epoch by epoch."""
    batches_per_epoch = split.num_examples // batch_size
    first_epoch, first_batch = divmod(start_step, batches_per_epoch)

    def epoch_examples(epoch: tf.Tensor) -> tf.data.Dataset:
        tf.random.set_seed(1)  # of this function's graph: otherwise `shuffle` depends on the seed of the process
        first = tf.where(epoch == first_epoch, tf.constant(first_batch, tf.int64), tf.constant(0, tf.int64))
        batches = tf.range(first, tf.constant(batches_per_epoch, tf.int64))
        return examples_of(epoch, tf.reshape(batches[:, tf.newaxis] * batch_size + places, [-1]))

    return tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(epoch_examples)


def _readable(images: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Returns images with zeros for those of weight 0."""
    weights = tf.reshape(tf.cast(weights > 0.0, tf.float32), (-1, 1))
    return tf.reshape(weights * tf.reshape(images, (-1, math.prod(images.shape[1:]))), tf.shape(images))


def _weight(labels: tf.Tensor, labelled: bool, readable: bool | tf.Tensor = True) -> tf.Tensor:
    """Returns the weights of examples: 0 for those that cannot be decoded or lack a label that is needed."""
    weights = tf.cast(labels >= 0, tf.float32) if labelled else tf.ones_like(labels, tf.float32)
    return tf.where(readable, weights, 0.0)


def _batch(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, noise: tf.Tensor | None) -> Batch:
    batch = {"images": images, "labels": labels, "weights": weights}
    return batch if noise is None else {**batch, "noise": noise}


def fill_gaps(batches: tf.data.Dataset, preprocessing: Preprocessing, num_patches: int = 0) -> tf.data.Dataset:
    """Replaces missing data by the mean, 0, and for masked autoencoding adds `valid`, the mask of pixels with data."""

    def fill(batch: Batch) -> Batch:
        is_gap = tf.math.is_nan(batch["images"])
        valid = {"valid": 1.0 - tf.cast(is_gap, tf.float32)} if num_patches else {}
        return {**batch, "images": tf.where(is_gap, 0.0, batch["images"]), **valid}

    return parallel_map(batches, fill) if preprocessing.reading.has_gaps else batches


def _fill_up(batch: Batch, batch_size: int) -> Batch:
    missing = batch_size - tf.shape(batch["weights"])[0]
    return {
        name: tf.ensure_shape(
            tf.pad(value, [[0, missing]] + [[0, 0]] * (value.shape.rank - 1)), (batch_size, *value.shape[1:])
        )
        for name, value in batch.items()
    }


def finish_batches(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns batches that are prefetched, in a fixed order, and that `tf.distribute` does not divide."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options).prefetch(tf.data.AUTOTUNE)
