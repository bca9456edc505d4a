"""On what the models run."""

import keras


def is_tensorflow_on_cpu():
    """Whether the backend is TensorFlow and there is no GPU: where some of its operations need help."""
    return keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu")
