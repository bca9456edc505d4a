"""Several readers of one run: which examples of every batch each of them reads."""

import numpy as np

from experiments.errors import UserError


def share_of_batch(batch_size, reader, num_readers):
    """Returns the places of a global batch that belong to a reader.

    The places are dealt out from both ends of the batch to its middle: of 8 places the first of two readers gets
    0, 1, 6 and 7, the other 2 to 5. So with each place a share of an even number has the opposite one, and what Mixup and
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
