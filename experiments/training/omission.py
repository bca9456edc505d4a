"""What a run goes on without: lines of metrics and pictures that cannot be written while it trains."""

import contextlib
import logging

from experiments.paths import FAULTS, StorageError, reason


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
