"""The form of a contender, and the images and masks that all of them get."""

import abc

import numpy as np

from experiments.config import height_and_width


class Contender(abc.ABC):
    """A model with its optimizer, on the best device there is, that takes training steps.

    Attributes:
        device: the device in words; `CPU` where it is none of its own.
        note: what a reader of the figures has to know, or an empty text.
    """

    device = "CPU"
    note = ""

    @abc.abstractmethod
    def run(self, steps):
        """Takes training steps, waits until the last has ended, and returns its loss as a float."""

    @abc.abstractmethod
    def matrix_product(self, size):
        """Returns a function that multiplies matrices of `size` x `size` as often as its argument says, and waits.

        They have the precision in which the steps multiply; each factor is the product before, so that none can be
        left out.
        """

    def device_peak(self):
        """Returns the largest number of bytes that were allocated on the device; None for a CPU."""
        return None


def random_batch(settings, ratio):
    """Returns images and masks, the same for every contender with the same settings.

    Args:
        settings: `StepSettings`.
        ratio: one of their mask ratios.

    Returns:
        `(images, visible)`, float32: `(B, H, W, 3)` of a normal distribution, and `(B, L)`, 1 for visible patches and 0
        for hidden ones.
    """
    rng = np.random.default_rng(settings.seed)
    images = rng.normal(size=(settings.batch_size, *height_and_width(settings.image_size), 3)).astype("float32")
    ranks = rng.random((settings.batch_size, settings.num_patches)).argsort(axis=1).argsort(axis=1)
    return images, (ranks < settings.num_visible(ratio)).astype("float32")


def random_matrices(size):
    """Returns two float32 matrices of `size` x `size`; any times multiplied by the second, the first stays as large."""
    rng = np.random.default_rng(0)
    return [rng.normal(scale=size**-0.5, size=(size, size)).astype("float32") for _ in range(2)]
