"""Pipelines that take turns: this project's in TensorFlow, and Pillow's in as many processes as there are cores."""

import multiprocessing
import random
import time

import numpy as np

from experiments.benchmarks.pipeline import pillow_reference
from experiments.benchmarks.pipeline.settings import CROP_SCALE, NUM_CLASSES, PILLOW_CONTENDERS, STAGES

MASK_PATCHES = 49  # for which pretraining draws noise


class TensorFlowPipelines:
    """The contenders of `STAGES`.

    Args:
        settings: `InputSettings`.
        paths: of the files.
    """

    def __init__(self, settings, paths):
        self._settings, self._paths, self._datasets = settings, paths, {}

    def run(self, name):
        """Has a contender take its turn.

        Its first batches, in which it is set up, are not timed. Nothing of it runs after the turn.

        Returns:
            The seconds of the turn, those that cores have worked in it, and those of them in processes of its own.
        """
        if name not in self._datasets:
            self._datasets[name] = self.batches(STAGES[name])
        batches = iter(self._datasets[name])
        for _ in range(self._settings.warmup):
            next(batches)
        started, worked = time.perf_counter(), time.process_time()
        for _ in range(self._settings.steps):
            next(batches)
        return time.perf_counter() - started, time.process_time() - worked, 0.0

    def batches(self, stages):
        """Returns the endless `tf.data.Dataset` of batches of some `Stages`."""
        from experiments.data.augmentation.mixing import Mixing
        from experiments.data.pipeline import (
            evaluation_batches,
            example_seed,
            load_batches,
            training_batches,
        )
        from experiments.data.preprocessing import Preprocessing

        settings, data = self._settings, self._settings.data
        preprocessing = Preprocessing(
            settings.image_size,
            data.channels,
            data.mean,
            data.std,
            data.evaluation_crop,
            CROP_SCALE,
            stages.flip,
            **stages.changes,
        )
        split = self._split(stages.source)
        if stages.steps == "evaluation":
            return evaluation_batches(split, preprocessing, settings.batch_size).repeat()
        if stages.steps == "crop":
            examples = split.in_order().repeat().enumerate()
            return load_batches(
                split,
                examples.map(lambda count, example: (example_seed(settings.seed, 0, count), *example)),
                lambda seed, content, label: (preprocessing.random_view(split.read(content), seed), 1.0),
                lambda image, weight: {"images": image, "weights": weight},
                settings.batch_size,
            ).prefetch(1)
        mixing = Mixing(NUM_CLASSES, **stages.mixing) if stages.mixing else None
        patches = 0 if stages.mixing or stages.changes else MASK_PATCHES
        return training_batches(split, preprocessing, settings.batch_size, settings.seed, 0, patches, mixing)

    def _split(self, source):
        import tensorflow as tf

        from experiments.data.source import MemorySplit, StreamSplit

        labels = np.arange(len(self._paths)) % NUM_CLASSES
        if source == "folder":
            return MemorySplit(np.array([path.encode() for path in self._paths], dtype=object), labels, True)
        contents = []
        for path in self._paths:
            with open(path, "rb") as file:
                contents.append(file.read())
        examples = tf.data.Dataset.from_tensor_slices((contents, labels))
        return StreamSplit(examples, len(labels), shuffle_buffer=len(labels))


class PillowPipelines:
    """The contenders of `PILLOW_CONTENDERS`: the images of a turn are shared out among processes, one for each core.

    No image travels between processes: each is made and let go of, which favours Pillow.

    Args:
        settings: `InputSettings`.
        paths: of the files.
        cores: number of processes.
    """

    def __init__(self, settings, paths, cores):
        self._settings, self._paths, self._cores, self._turns = settings, paths, cores, 0
        self._pool = multiprocessing.get_context("spawn").Pool(cores)
        for name in PILLOW_CONTENDERS:
            self.run(name)  # so that every process has imported what it needs

    def run(self, name):
        """See `TensorFlowPipelines.run`."""
        self._turns += 1
        data, images = self._settings.data, self._settings.images
        tasks = [
            (
                [self._paths[i % len(self._paths)] for i in range(part, images, self._cores)],
                data.size,
                (np.float32(data.mean), np.float32(data.std)) if PILLOW_CONTENDERS[name] else None,
                (self._settings.seed, self._turns, part),
            )
            for part in range(self._cores)
        ]
        started = time.perf_counter()
        worked = self._pool.map(_load_all, tasks, chunksize=1)
        return time.perf_counter() - started, sum(worked), sum(worked)

    def close(self):
        """Ends the processes."""
        self._pool.terminate()
        self._pool.join()


def _load_all(task):
    """Loads images and returns the seconds that this process has worked for them."""
    paths, size, normalization, seed = task
    generator, started = random.Random(str(seed)), time.process_time()
    for path in paths:
        pillow_reference.load(path, size, normalization, generator)
    return time.process_time() - started
