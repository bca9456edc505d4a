"""Opens the source that a configuration names."""

from experiments.data.digits import open_digits
from experiments.data.folder import open_folder


def open_source(config):
    """Returns the `Source` of a `DataConfig`.

    Raises:
        UserError: if it cannot be opened.
    """
    kind, _, name = config.source.partition(":")
    if kind == "tfds":
        from experiments.data.tfds import open_tfds  # importing TensorFlow Datasets takes seconds

        return open_tfds(name, config)
    if kind == "folder":
        return open_folder(name, config)
    return open_digits()
