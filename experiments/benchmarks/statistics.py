"""Figures of rounds in which contenders had their turns: medians, spreads, and ratios round by round."""

import itertools

import numpy as np


def summarize(values):
    """Returns `{median, smallest, largest, lower_quartile, upper_quartile}` of values, one a round."""
    smallest, lower, median, upper, largest = np.percentile(values, (0, 25, 50, 75, 100)).tolist()
    return {
        "median": median,
        "smallest": smallest,
        "largest": largest,
        "lower_quartile": lower,
        "upper_quartile": upper,
    }


def speed_ratios(seconds):
    """Compares contenders two by two, each time within one round, where both met the same load of the machine.

    Args:
        seconds: `{contender: seconds of a turn, one a round}`.

    Returns:
        `{"a/b": {..., "rounds": ratios}}` for each pair, the earlier contender first: how many times as fast as b is
        a, summarised as by `summarize`.
    """
    comparisons = {}
    for first, second in itertools.combinations(seconds, 2):
        ratios = [slow / fast for fast, slow in zip(seconds[first], seconds[second])]
        comparisons[f"{first}/{second}"] = {**summarize(ratios), "rounds": ratios}
    return comparisons
