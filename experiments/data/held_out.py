"""Parts of the training images that are held out, for choices and for the final figures."""

import numpy as np

from experiments.errors import UserError


def held_out(num_examples, shares, seed=0):
    """Draws parts of a data set at random.

    Args:
        num_examples: size `N` of the data set.
        shares: share of each part, numbers that sum to less than 1.
        seed: integer; the parts are a function of `N`, `shares` and it.

    Returns:
        A list of sorted index arrays: what remains, then each part.
    """
    order = np.random.default_rng(seed).permutation(num_examples)
    counts = [round(num_examples * share) for share in shares]
    parts = np.split(order, np.cumsum(counts))
    return [np.sort(part) for part in (parts[-1], *parts[:-1])]


def check_shares(num_examples, shares, name):
    """Looks at what shares of a few images come to, in whole numbers.

    Args:
        num_examples: number of the training images that the shares are taken of.
        shares: `{part: share}` with the parts `validation` and `test`.
        name: of the data set, for messages.

    Returns:
        Lines for the user: which parts have no image although their share is above 0.

    Raises:
        UserError: if no image is left to train on.
    """
    counts = {part: round(num_examples * share) for part, share in shares.items()}
    if 0 < num_examples <= sum(counts.values()):
        fields = " and ".join(f"data.{part}_share={share:g}" for part, share in shares.items() if share)
        raise UserError(f"{name}: {fields} leave none of {num_examples:,} images to train on; make them smaller.")
    return [
        f"no {part} images: data.{part}_share={share:g} of {num_examples:,} images comes to none"
        for part, share in shares.items()
        if share and not counts[part]
    ]
