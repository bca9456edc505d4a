"""What a run goes on without: files and words that nobody can take while it trains."""

import contextlib
import logging

from experiments.io import FAULTS, StorageError, reason


@contextlib.contextmanager
def going_on_without(path):
    """Context in which a file that cannot be written is a warning: days of training are worth more than it.

    Checkpoints and models are not written in it: without them the run ends.

    Args:
        path: of the file.
    """
    try:
        yield
    except (*FAULTS, StorageError) as error:
        why = str(error) if isinstance(error, StorageError) else f"{path} cannot be written: {reason(error)}."
        logging.getLogger("experiments").warning("%s The run goes on.", why)


def unless_unheard(say):
    """Returns a function that takes a line for the user, and goes on where it cannot be written.

    That is so where the reader of a pipe has left, or the disk of a log file is full.

    Args:
        say: function that takes a line, and may raise OSError.
    """

    def say_or_go_on(line):
        with contextlib.suppress(OSError):
            say(line)

    return say_or_go_on
